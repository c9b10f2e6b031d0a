"""A recipe for the commands that take one, and a finished run for those that read one."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import GOOD
from pipeline.small import recipe

import prunelib
from prunelib.models import ModelInfo


@pytest.fixture(scope="package")
def finished(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("cli") / "results"
    prunelib.run(recipe(info), results)
    return results


@pytest.fixture
def good(info: ModelInfo, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD.format(model=info.path))
    return path
