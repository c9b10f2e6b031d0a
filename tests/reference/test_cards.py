"""The cards of the shipped models are what the code writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import prunelib.reference
from prunelib.reference.card import card

FOLDERS = sorted(Path(prunelib.reference.__file__).parent.glob("models/*"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_card_is_made_of_the_notes_beside_it(folder: Path) -> None:
    notes = json.loads((folder / "training.json").read_text("utf-8"))
    assert (folder / "README.md").read_text("utf-8") == card(folder.name, notes)
