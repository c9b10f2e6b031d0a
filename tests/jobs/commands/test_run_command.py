"""``prunelib run`` as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import call

from prunelib.pipeline.plan import estimate
from prunelib.recipe.load import load_recipe
from prunelib.results.query import open_results


def test_a_run_ends_with_a_table_and_what_to_type_next(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("run", good, "--results", tmp_path / "r", "--inline") == 0
    said = capfd.readouterr().out
    for word in ("attribute", "search", "evaluate", "integrated_gra", "prunelib query"):
        assert word in said
    assert call("run", good, "--results", tmp_path / "r", "--inline") == 0
    assert "0 units done" in capfd.readouterr().out


def test_what_the_plan_said_at_its_first_start_is_kept(
    good: Path, finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results = Path(shutil.copytree(finished, tmp_path / "r"))
    planned = {line.stage: line.seconds for line in estimate(load_recipe(good), results)}
    assert planned["evaluate"] and planned["attribute"]
    for _ in range(2):  # by the second time everything is there
        assert call("run", good, "--results", results, "--inline") == 0
        with open_results(results) as connection:
            (said,) = connection.sql("SELECT predicted FROM runs "
                                     "WHERE split_part(run, '-', 1) = 'try'").fetchall()
            costs = dict(connection.sql("SELECT stage, predicted_seconds FROM costs "
                                        "WHERE split_part(run, '-', 1) = 'try'").fetchall())
        assert list(json.loads(said[0]).values()) == [planned]
        assert costs == {stage: pytest.approx(planned[stage]) for stage in costs}
        assert "evaluate" in costs
    with open_results(finished) as connection:  # nothing had been measured before
        assert connection.sql("SELECT predicted FROM runs").fetchall() == [(None,)]


def test_a_large_run_ends_with_its_files_merged(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jobs.overnight.COMPACT_FROM", 1)
    assert call("run", good, "--results", tmp_path / "r", "--inline") == 0
    assert "Merging the files" in capfd.readouterr().out
    assert list((tmp_path / "r" / "predictions" / "merged").glob("*.parquet"))
    assert call("run", good, "--results", tmp_path / "r", "--inline") == 0
    assert "0 units done" in capfd.readouterr().out


def test_a_missing_recipe_and_a_folder_that_cannot_be_written(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("validate", tmp_path / "none.yaml") == 2
    assert "cannot read recipe" in capfd.readouterr().err
    assert call("run", good, "--results", "/proc/nothing") == 2
    assert call("run", good, "--results", good) == 2
    assert capfd.readouterr().err.count("\n") == 2


def test_a_folder_of_another_schema_version(
    good: Path, finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(finished, tmp_path / "other"))
    marker = other / "prunelib-results.json"
    marker.write_text(json.dumps({"schema_version": 2}))  # as prunelib wrote it then
    assert call("run", good, "--results", other) == 2
    assert call("query", "select 1", "--results", other) == 2
    assert "schema version 2" in capfd.readouterr().err
