"""A module of a user's own in the current folder, which no import remembers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

NAME = "own_module_of_a_test"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder of this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    yield tmp_path
    sys.modules.pop(NAME, None)


def write_module(folder: Path, source: str) -> None:
    """Write the module anew; what was imported of it is forgotten."""
    (folder / f"{NAME}.py").write_text(source)
    sys.modules.pop(NAME, None)
