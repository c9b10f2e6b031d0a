"""Both engines behind one fixture."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tiny_llama import start_here

from prunelib.engines.base import Engine
from prunelib.models import ModelInfo

KINDS = ["transformers", pytest.param("vllm", marks=pytest.mark.vllm)]


@pytest.fixture(scope="module", params=KINDS)
def engine(request: pytest.FixtureRequest, info: ModelInfo) -> Iterator[Engine]:
    """Each engine in turn, started once per module."""
    engine = start_here(request.param, info)
    yield engine
    engine.close()
