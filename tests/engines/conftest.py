"""The tiny model, its oracle, and both engines behind one fixture."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tiny_llama import Oracle, build, start_here

from prunelib.engines.base import Engine
from prunelib.models import ModelInfo

KINDS = ["transformers", pytest.param("vllm", marks=pytest.mark.vllm)]


@pytest.fixture(scope="session")
def info(tmp_path_factory: pytest.TempPathFactory) -> ModelInfo:
    return build(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def oracle(info: ModelInfo) -> Oracle:
    return Oracle(info)


@pytest.fixture(scope="module", params=KINDS)
def engine(request: pytest.FixtureRequest, info: ModelInfo) -> Iterator[Engine]:
    """Each engine in turn, started once per module."""
    engine = start_here(request.param, info)
    yield engine
    engine.close()
