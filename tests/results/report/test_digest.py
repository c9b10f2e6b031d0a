"""The morning after, in twenty lines, of hand-made results with known answers."""

from __future__ import annotations

import datetime as dt
from typing import Any

from report_folder import add_choice, answer
from results_folder import NOON, RUN, Folder, run_row

from jobs.digest import digest

HOUR = dt.timedelta(hours=1)
LATER = NOON + dt.timedelta(minutes=30)


def told(folder: Folder, **runs: dict[str, Any]) -> str:
    """The digest half an hour after noon, on one line."""
    for name, changes in runs.items():
        folder.add("runs", run_row(run=name, resolved="{}", **changes), name)
    folder.write()
    lines = digest(str(folder.root), HOUR, LATER)
    assert len(lines) <= 20
    assert all(len(line) <= 80 for line in lines[:-1])  # the last one names the place
    return " ".join(" ".join(lines).split())


def test_a_choice_that_beats_its_controls_and_one_that_does_not(folder: Folder) -> None:
    add_choice(folder, [20, 21, 19, 20, 20])
    text = told(folder)
    assert f"{RUN}: done at 2026-01-01 12:00 UTC; 5 units in 0 s" in text
    assert "m: ig, layer 1 (10%): +40.0 points, 95% interval +2" in text
    assert "better than random sets, too few random searches to compare with" in text
    assert "not surely better" not in text


def test_a_choice_no_better_than_chance_says_so(folder: Folder) -> None:
    add_choice(folder, [36, 34, 37, 35, 36])
    assert "not surely better than random sets" in told(folder)


def test_failures_are_grouped_by_reason_and_models_left_out_stand_apart(folder: Folder) -> None:
    for i in range(12):
        folder.attempt(f"u{i}", "failed", 1, error_kind="OutOfMemoryError",
                       error_text=f"no memory\nat {i}")
    folder.attempt("u77", "failed", 1, error_text="too long")
    folder.attempt("model-1", "failed", 1, stage="model", model="gone/away", worker=None,
                   error_text="model 'gone/away': no such folder")
    text = told(folder, **{RUN: {"status": "failed"}})
    assert "failed 12 units of evaluate, m: OutOfMemoryError: no memory" in text
    assert "1 units of evaluate, m: UnitError: too long" in text
    assert "left out gone/away: model 'gone/away': no such folder" in text


def test_runs_that_ended_go_on_or_died(folder: Folder) -> None:
    text = told(folder, **{
        "old-1": {"started": NOON - 3 * HOUR, "finished": NOON - HOUR, "heartbeat": NOON - HOUR},
        "late-1": {"status": "deadline"},
        "dead-1": {"status": "running", "finished": None},
        "live-1": {"status": "running", "finished": None, "heartbeat": LATER}})
    assert text.startswith("3 runs since 2026-01-01 11:30 UTC")
    assert "old-1" not in text and "late-1: deadline" in text
    assert "dead-1: silent since 2026-01-01 12:00 UTC" in text
    assert "live-1: running since 2026-01-01 12:00 UTC" in text


def test_a_bad_night_of_many_models_is_twenty_lines_too(folder: Folder) -> None:
    """Every part has more than there is place for, and says how much."""
    add_choice(folder, [36, 34])
    for i in range(30):
        model = f"a-folder-with-a-long-name/and-a-model-with-a-long-name-{i}"
        folder.intervention("base", "none", "baseline", model=model, unit_id=f"b{i}")
        answer(folder, "base", 20, model=model, unit_id=f"b{i}")
        folder.intervention("ig", "ig", "chosen", model=model, unit_id=f"b{i}")
        answer(folder, "ig", 20 + i % 20, model=model, unit_id=f"b{i}")
        folder.attempt(f"u{i}", "failed", 1, error_kind=f"Error{i}", error_text="why " * 99)
        folder.attempt(f"x{i}", "failed", 1, stage="model", model=f"m{i}", error_text="no " * 99)
        folder.store.write("run_units", f"l{i}", [
            {"run": RUN, "unit_id": f"b{i}", "stage": "evaluate", "model": model}])
    text = told(folder, **{f"other-{i}": {} for i in range(9)})
    # 31 models; the best of them is the only one whose line there is place for.
    assert text.count(" more ") >= 4


def test_best_comes_first(folder: Folder) -> None:
    add_choice(folder, [20, 21], right=24)
    for name, right in (("best", 40), ("worst", 12)):
        for intervention, role, score in (("base", "baseline", 20), ("ig", "chosen", right)):
            method = "none" if role == "baseline" else "ig"
            folder.intervention(intervention, method, role, model=name, unit_id=name)
            answer(folder, intervention, score, model=name, unit_id=name)
    folder.write()
    folder.store.write("run_units", "links", [
        {"run": RUN, "unit_id": name, "stage": "evaluate", "model": name}
        for name in ("best", "worst")])
    text = " ".join(digest(str(folder.root), HOUR, LATER))
    assert text.index("best: ig") < text.index("m: ig") < text.index("worst: ig")
