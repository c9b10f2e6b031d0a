"""The results that benchmarks make up are results that every command can read."""

from __future__ import annotations

from pathlib import Path

from benchmarks.commands import COMMANDS, once
from benchmarks.views import UNITS, make
from prunelib.results.query import query
from prunelib.results.storage.verify import verify


def test_they_are_whole_and_every_command_reads_them(tmp_path: Path) -> None:
    make(tmp_path, 2 * UNITS)
    ((count,),) = query(tmp_path, "SELECT count(*) FROM predictions").to_pandas().values
    assert count == 2 * UNITS
    assert verify(tmp_path).damage == []
    assert query(tmp_path, "SELECT * FROM leaderboard").num_rows > 4
    for name in ("report", "digest", "catalog"):
        used = once(COMMANDS[name], tmp_path)
        assert used["seconds"] > 0
