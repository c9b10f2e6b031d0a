"""A question about results reads what it needs, and nothing else."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from results_folder import Folder

from prunelib.results.query import _connect, _mentioned, query
from prunelib.results.storage.compaction import compact
from prunelib.results.storage.verify import verify
from prunelib.results.views.registry import VIEWS


@pytest.mark.parametrize("view", [view.name for view in VIEWS])
def test_a_view_needs_no_more_than_is_opened_for_it(view: str) -> None:
    sql = f"SELECT * FROM {view}"
    with _connect({}, _mentioned(sql)) as connection:
        connection.execute(sql)


def test_the_leaderboard_needs_no_single_prediction() -> None:
    names = _mentioned("select * from leaderboard")
    assert "predictions" not in names and {"leaderboard", "interventions", "_parts"} <= names


def test_a_file_whose_rows_were_merged_is_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Folder(tmp_path)
    folder.intervention("base", "none", "baseline")
    folder.answers("base", "10c0e1", task="t", unit_id="base-t")
    folder.write()
    compact(folder.store)
    before = query(tmp_path, "SELECT * FROM predictions ORDER BY ALL")
    damaged = tmp_path / "predictions" / "base-t.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING):
        assert query(tmp_path, "SELECT * FROM predictions ORDER BY ALL").equals(before)
    assert not caplog.records
    assert [found.file for found in verify(tmp_path).damage] == ["predictions/base-t.parquet"]
    (merged,) = (tmp_path / "predictions" / "merged").iterdir()
    merged.unlink()  # now the file is asked
    with caplog.at_level(logging.WARNING):
        assert query(tmp_path, "SELECT * FROM predictions").num_rows == 0
    assert caplog.records
