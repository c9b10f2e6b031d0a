"""Pretrained models, where they were fetched."""

from __future__ import annotations

import pytest

from prunelib.models.gguf import made_from
from prunelib.models.pretrained import PRETRAINED


def fetched(name: str) -> list[pytest.MarkDecorator]:
    """Marks of a test that needs ``reference/NAME``, and is skipped where it is not."""
    there = made_from(PRETRAINED[name].sha256).is_dir()
    return [pytest.mark.real, pytest.mark.skipif(
        not there, reason=f"needs `prunelib reference fetch {name}`")]
