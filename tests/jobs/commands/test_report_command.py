"""``prunelib report`` as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import call

from prunelib.results.query import open_results


def test_a_report_is_a_page_and_a_folder_of_figures(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("report", "--results", finished, "--out", tmp_path / "mine.html") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"mine.html", "mine-figures"}
    page = (tmp_path / "mine.html").read_text("utf-8")
    assert "<h2 id=\"leaderboard-title\">Leaderboard</h2>" in page and len(page) < 5_000_000
    pictures = sorted((tmp_path / "mine-figures").iterdir())
    assert {path.suffix for path in pictures} == {".pdf", ".png", ".svg"}
    said = capfd.readouterr().out
    for path in pictures:
        assert f"mine-figures/{path.name}" in page and path.name in said
        assert path.stat().st_size > 5_000


def test_a_run_that_is_not_there_is_told_with_those_that_are(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ((run,),) = open_results(finished).sql("SELECT run FROM runs").fetchall()
    assert call("report", "--results", finished, "--run", run[:-1],
                "--out", tmp_path / "mine.html") == 2
    assert run in capfd.readouterr().err and not list(tmp_path.iterdir())


def test_a_report_of_nothing_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("report", "--results", tmp_path, "--out", tmp_path / "new" / "mine.html") == 2
    assert not (tmp_path / "new").exists()
    assert capfd.readouterr().err.count("\n") == 1
