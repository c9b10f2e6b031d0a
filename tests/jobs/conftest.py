"""A finished run for the commands that read one."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline.small import recipe

import prunelib
from prunelib.models import ModelInfo


@pytest.fixture(scope="package")
def finished(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("cli") / "results"
    prunelib.run(recipe(info), results)
    return results
