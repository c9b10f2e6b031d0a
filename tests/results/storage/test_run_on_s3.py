"""A whole run whose results are on S3: the same rows as on a disk, and every command reads them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pipeline.small import recipe, rows

import prunelib
from jobs import cli
from prunelib.models import ModelInfo


def test_a_run_on_s3(s3: str, info: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                     ) -> None:
    prunelib.run(recipe(info), tmp_path / "disk")
    assert prunelib.run(recipe(info), s3).results == s3
    assert prunelib.run(recipe(info), s3).units_done == 0
    expected, found = rows(tmp_path / "disk"), rows(s3)
    assert all(found[table].equals(expected[table]) for table in expected)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe(info).model_dump_json())
    for command in (["query", "FROM leaderboard"], ["tables", "runs"], ["plan", str(path)],
                    ["report", "--out", str(tmp_path / "report.html")], ["compact"],
                    ["query", "FROM leaderboard"], ["run", str(path), "--inline"]):
        monkeypatch.setattr(sys, "argv", ["prunelib", *command, "--results", s3])
        try:
            cli.main()
        except SystemExit as stop:
            assert not stop.code, command
    assert list((tmp_path / "report-figures").glob("*.png"))
