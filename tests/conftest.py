"""The tiny random model that most tests run on, and its oracle."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_families import build_family
from tiny_llama import Oracle, build

import prunelib
from prunelib.models import Loaded, ModelInfo, load


@pytest.fixture(scope="session")
def info(tmp_path_factory: pytest.TempPathFactory) -> ModelInfo:
    return build(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def oracle(info: ModelInfo) -> Oracle:
    return Oracle(info)


@pytest.fixture(scope="session")
def doubled(info: ModelInfo) -> Loaded:
    """The tiny model in float64, for comparisons to the last digits."""
    return load(info, "float64")


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelInfo]:
    """Tiny models by the names of ``tiny_families.FAMILIES``."""
    return functools.cache(lambda name: build_family(name, tmp_path_factory.mktemp("family")))


@pytest.fixture(scope="session")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a small importance study of a reference model, which answers some of its tasks."""
    folder = tmp_path_factory.mktemp("study") / "results"
    recipe = prunelib.Recipe.model_validate({
        "name": "study", "models": ["reference/llama"], "engine": "transformers",
        "importance": {
            "prompts": 8, "oracle": ["head", "ffn"], "examples": 8, "sequences": 2,
            "removal": {"fractions": [0.2, 0.5], "random": 2, "joint": True},
        },
        "evaluate": {"tasks": ["antonyms_reference", "country_capital_reference", "to_upper"],
                     "shots": [0, 2], "examples": 8},
    })  # fmt: skip
    assert prunelib.run(recipe, folder).complete
    return folder
