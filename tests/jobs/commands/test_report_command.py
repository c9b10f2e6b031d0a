"""``prunelib report`` as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import call


def test_a_report_is_one_picture_per_run_and_model(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("report", "--results", finished, "--out", tmp_path / "figures") == 0
    (picture,) = (tmp_path / "figures").iterdir()
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 20_000
    assert picture.name in capfd.readouterr().out


def test_a_report_of_nothing_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("report", "--results", tmp_path, "--out", tmp_path / "figures") == 2
    assert not (tmp_path / "figures").exists()
    assert capfd.readouterr().err.count("\n") == 1
