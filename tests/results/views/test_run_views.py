"""The views on how a run went, on hand-made rows with known answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from results_folder import NOON, RUN, Folder, only, rows, run_row

from prunelib.results.query import open_results


def test_costs_and_failed_units(folder: Folder) -> None:
    folder.attempt("u1", "failed", 0)
    folder.attempt("u1", "done", 1, attempt=2, seconds=4.0, peak_memory_mb=300.0)
    folder.attempt("u2", "failed", 2)
    folder.attempt("u2", "failed", 3, attempt=2, error_text="still no")
    folder.attempt("u3", "failed", 4, run="early-1")
    folder.attempt("u3", "done", 5, run="late-2")
    folder.write()
    costs = only(folder, f"FROM costs WHERE run = '{RUN}'")
    assert (costs["units"], costs["seconds"], costs["seconds_per_unit"]) == (2, 10.0, 5.0)
    assert costs["peak_memory_mb"] == 300.0
    assert (costs["starts"], costs["switches"], costs["seconds_per_switch"]) == (0, 0, None)
    failed = only(folder, "FROM failed_units")
    assert (failed["unit_id"], failed["attempts"], failed["error_text"]) == ("u2", 2, "still no")
    assert (failed["finished_at"] - NOON).total_seconds() == 180


def test_starts_and_switches_of_engines_are_told_from_work(folder: Folder) -> None:
    folder.attempt("u1", "done", 0, seconds=12.0, start_seconds=10.0)
    folder.attempt("u2", "done", 1, seconds=2.0)
    folder.attempt("u3", "done", 2, seconds=3.0, switch_seconds=0.5)
    folder.attempt("u4", "failed", 3, seconds=3.0, switch_seconds=1.5)
    folder.write()
    costs = only(folder, "FROM costs")
    assert (costs["units"], costs["seconds"], costs["seconds_per_unit"]) == (4, 20.0, 2.0)
    assert (costs["starts"], costs["seconds_per_start"]) == (1, 10.0)
    assert (costs["switches"], costs["seconds_per_switch"]) == (2, 1.0)


def test_hours_are_of_cpus_or_of_every_gpu_that_a_worker_held(folder: Folder) -> None:
    folder.attempt("u1", "done", 0, seconds=3600.0, gpus=0)
    folder.attempt("u2", "failed", 1, seconds=1800.0, gpus=0)
    folder.attempt("u3", "done", 2, seconds=900.0, gpus=4)
    folder.attempt("u4", "done", 3, seconds=3600.0, gpus=None)  # an earlier version did not say
    folder.attempt("u5", "done", 4, seconds=60.0, gpus=None, stage="search")
    folder.write()
    costs = {row["stage"]: row for row in rows(folder, "FROM costs")}
    evaluate, search = costs["evaluate"], costs["search"]
    assert (evaluate["cpu_hours"], evaluate["gpu_hours"], evaluate["seconds"]) == (1.5, 1.0, 9900)
    assert (search["cpu_hours"], search["gpu_hours"]) == (None, None)


def test_what_was_spent_stands_beside_what_the_plan_said(folder: Folder) -> None:
    folder.add("runs", run_row(predicted='{"m": {"evaluate": 8.0, "search": 0.0}, "n": {}}'), RUN)
    folder.add("runs", run_row("other-1"), "other-1")
    for unit, stage, run in (("u1", "evaluate", RUN), ("u2", "evaluate", RUN),
                             ("u3", "search", RUN), ("u4", "canary", RUN),
                             ("u5", "evaluate", "other-1")):
        folder.attempt(unit, "done", 0, stage=stage, seconds=3.0, run=run)
    folder.write()
    found = {(row["run"], row["stage"]): (row["seconds"], row["predicted_seconds"],
                                          row["spent_to_predicted"])
             for row in rows(folder, "FROM costs")}
    assert found == {(RUN, "evaluate"): (6, 8, 0.75), (RUN, "search"): (3, 0, None),
                     (RUN, "canary"): (3, None, None), ("other-1", "evaluate"): (3, None, None)}


def test_switches_are_told_from_the_start(studied: Path) -> None:
    costs = {r["stage"]: r for r in rows(studied, "FROM costs")}
    assert (costs["attribute"]["starts"], costs["attribute"]["switches"]) == (0, 0)
    evaluate = costs["evaluate"]
    assert evaluate["starts"] == 1
    used = open_results(studied).sql(
        "SELECT count(*) FROM (SELECT DISTINCT purpose, intervention FROM predictions)"
    ).fetchall()[0][0]
    # One per ablation and pass: its tasks follow on each other; the first one is the start's.
    assert evaluate["switches"] == used - 1
    assert 0 < evaluate["seconds_per_switch"] < 1 and evaluate["seconds_per_start"] > 0
    parts = (evaluate["units"] * evaluate["seconds_per_unit"] + evaluate["seconds_per_start"]
             + evaluate["switches"] * evaluate["seconds_per_switch"])
    assert parts == pytest.approx(evaluate["seconds"])
