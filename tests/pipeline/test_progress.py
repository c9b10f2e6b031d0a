"""Progress from result files: of a real run, and from rows whose every number is known."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pipeline.small import Watcher, recipe
from rich.console import Console

import prunelib
from jobs.watch import draw, watch_run
from prunelib.errors import UserError
from prunelib.models import ModelInfo
from prunelib.pipeline.progress import RunProgress, StageProgress, read_progress, summarise

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RECIPE = prunelib.Recipe.model_validate({
    "name": "known", "models": ["some/model-that-is-not-here"],
    "attribution": {"prompts": 50, "block": 25}, "controls": {"random": 1, "random_searches": 1},
    "evaluate": {"tasks": ["to_upper"], "shots": [1, 2], "seeds": [0, 1]},
})  # fmt: skip
(MODEL,) = (spec.id for spec in RECIPE.models)


def test_a_run_is_seen_from_its_files_without_its_model(info: ModelInfo, tmp_path: Path) -> None:
    model = Path(shutil.copytree(info.path, tmp_path / "model"))
    watcher = Watcher(tmp_path / "r")
    prunelib.run(recipe(info, models=[str(model)]), tmp_path / "r", None, watcher)
    shutil.rmtree(model)
    last = read_progress(tmp_path / "r")
    totals = {stage.stage: stage.total for stage in last.stages}
    assert last.status == "done" and all(s.done == s.total and s.exact for s in last.stages)
    assert totals["search"] == 5 and totals["attribute"] == 4

    first, later = watcher.seen[0], watcher.seen[-1]
    assert [s.total for s in first.stages] == [4, 5, 4, 20]  # from the recipe alone
    assert [s.exact for s in first.stages] == [False, True, False, False]
    assert first.seconds_left is None
    for look in watcher.seen:
        assert look.status == "running" and look.silent_since is None
        assert all(s.total == totals[s.stage] for s in look.stages if s.exact)
        assert all(s.done <= (s.total or 0) for s in look.stages)
    assert [s.exact for s in later.stages] == [True] * 4


def test_looking_needs_neither_ray_nor_torch(info: ModelInfo, tmp_path: Path) -> None:
    prunelib.run(recipe(info, evaluate={"tasks": ["to_upper"], "shots": [1], "examples": 2}),
                 tmp_path / "r")
    code = ("import sys; from prunelib.pipeline.progress import read_progress; "
            f"read_progress({str(tmp_path / 'r')!r}); "
            "sys.exit(str({'ray', 'torch', 'transformers'} & set(sys.modules) or 0))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "0"


def known(minutes: int, **changes: Any) -> RunProgress:
    """A run of one worker that did the 8 attribute units of 4 layers and 3 of 9 in the search.

    An attribute unit took 20 s and a search unit a minute; one search unit failed.
    """
    run = {"run": "known-1", "status": "running", "started": NOON, "finished": None,
           "heartbeat": NOON + timedelta(minutes=6), "resolved": RECIPE.model_dump_json()}
    links = [{"model": MODEL, "stage": stage, "unit_id": f"{stage}-{i}"}
             for stage, units in (("attribute", 8), ("search", 9)) for i in range(units)]
    at, attempts = NOON, []
    for unit_id, seconds in [(f"attribute-{i}", 20) for i in range(8)] + [
            (f"search-{i}", 60) for i in range(4)]:
        at += timedelta(seconds=seconds)
        attempts.append({"run": "known-1", "model": MODEL, "stage": unit_id.partition("-")[0],
                         "unit_id": unit_id, "seconds": float(seconds), "finished_at": at,
                         "status": "failed" if unit_id == "search-3" else "done"})
    files = {a["unit_id"] for a in attempts if a["status"] == "done"}
    return summarise(run | changes, links, attempts, {MODEL: (4, 6)}, files,
                     NOON + timedelta(minutes=minutes))


def test_rates_and_times_are_measured_or_unknown() -> None:
    attribute, search, canary, evaluate = known(7).stages
    assert attribute == StageProgress(MODEL, "attribute", 8, 8, True, 0, pytest.approx(3.0), 0.0)
    # 3 done in the 260 s since the first began; 6 left of one minute each, one at a time.
    assert search == StageProgress(MODEL, "search", 3, 9, True, 1, pytest.approx(180 / 260),
                                   pytest.approx(360.0))
    assert canary == StageProgress(MODEL, "canary", 0, 4, False, 0, None, None)
    assert (evaluate.total, evaluate.exact) == (5 * 2 * 2, False)
    assert known(7).seconds_left is None  # nothing is known yet about the stages to come


def test_a_deadline_brings_more_units_later() -> None:
    resolved = RECIPE.model_copy(update={"deadline": "07:00"}).model_dump_json()
    search = known(7, resolved=resolved).stages[1]
    assert (search.total, search.exact) == (9, True)  # from the recipe, however often it comes


def test_a_run_without_heartbeat_for_two_minutes_is_silent() -> None:
    assert known(7).silent_since is None
    assert known(9).silent_since == NOON + timedelta(minutes=6)
    assert known(9, heartbeat=None).silent_since is None
    assert known(9, status="interrupted").silent_since is None


def test_a_recipe_of_another_version_leaves_what_was_begun() -> None:
    stages = known(7, resolved='{"strange": 1}').stages
    assert [(s.done, s.total) for s in stages] == [(8, 8), (3, 9), (0, None), (0, None)]


def drawn(progress: RunProgress) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(draw(progress))
    return console.export_text()


def test_what_is_drawn_fits_80_columns() -> None:
    text = drawn(known(7))
    assert max(map(len, text.splitlines())) <= 80
    for words in ("known-1: running since 2026-01-01 12:00 UTC; time left: unknown", "3 of 9",
                  "0 of ~20", "41.5/h", "3.0/min", "6 min", "unknown", "~ is an estimate"):
        assert words in text, text
    assert "silent since 2026-01-01 12:06 UTC: submit or run it again to resume" in drawn(known(9))


def test_watching_ends_with_the_run(info: ModelInfo, tmp_path: Path) -> None:
    """Begun before the run is, as after a submission."""
    said, codes = io.StringIO(), list[int]()
    console = Console(file=said, width=200)
    thread = threading.Thread(target=lambda: codes.append(
        watch_run(str(tmp_path / "r"), None, console, seconds=0.1)))
    thread.start()
    while not said.getvalue():
        time.sleep(0.01)
    prunelib.run(recipe(info), tmp_path / "r")
    thread.join(30)
    assert codes == [0]
    lines = said.getvalue().splitlines()
    assert "waiting" in lines[0] and "small-" in lines[-1] and ": done" in lines[-1]
    assert sum("evaluate: 16 of 16 units" in line for line in lines) == 1
    assert len(lines) < 60  # one line per change, not one per look


def test_no_run_and_an_unknown_run_are_user_errors(info: ModelInfo, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        read_progress(tmp_path / "nothing")
    prunelib.run(recipe(info, evaluate={"tasks": ["to_upper"], "shots": [1], "examples": 2}),
                 tmp_path / "r")
    with pytest.raises(UserError, match="unknown run 'smal': known: small-"):
        read_progress(tmp_path / "r", "smal")
