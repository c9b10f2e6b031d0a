"""The results that benchmarks make up are results that every command can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import views
from benchmarks.commands import COMMANDS, once
from prunelib.results.query import query
from prunelib.results.storage.verify import verify


@pytest.mark.slow
def test_they_are_whole_and_every_command_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = 2 * 3 * len(views.SHOTS) * len(views.INTERVENTIONS)
    for name, value in (("MODELS", 2), ("TASKS", 3), ("UNITS", units)):
        monkeypatch.setattr(views, name, value)
    views.make(tmp_path, 20 * units)
    ((count,),) = query(tmp_path, "SELECT count(*) FROM predictions").to_pandas().values
    assert count == 20 * units
    assert verify(tmp_path).damage == []
    assert query(tmp_path, "SELECT * FROM leaderboard").num_rows > 4
    for name in ("report", "digest"):
        used = once(COMMANDS[name], tmp_path)
        assert used["seconds"] > 0
