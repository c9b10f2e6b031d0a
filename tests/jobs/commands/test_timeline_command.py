"""``prunelib timeline`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import call

from prunelib.results.query import open_results


def test_the_ending_of_the_name_says_what_is_written(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    begins = {"json": b'{"traceEvents"', "png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for kind, begin in begins.items():
        out = tmp_path / "new" / f"run.{kind}"
        assert call("timeline", "--results", finished, "--out", out) == 0
        assert out.read_bytes().startswith(begin)
        assert out.name in capfd.readouterr().out
    events = json.loads((tmp_path / "new" / "run.json").read_text())["traceEvents"]
    ((units,),) = open_results(finished).sql(
        "SELECT count(*) FROM units WHERE worker IS NOT NULL").fetchall()
    assert sum("status" in event.get("args", {}) for event in events) == units


@pytest.mark.parametrize("name", ["run.txt", "run", "run.jpeg"])
def test_another_ending_is_told_before_any_work(
    finished: Path, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("timeline", "--results", finished, "--out", tmp_path / "x" / name) == 2
    said = capfd.readouterr().err
    assert ".json, .png, .svg or .pdf" in said and said.count("\n") == 1
    assert not (tmp_path / "x").exists()
