"""The views on single interventions, on hand-made rows with known answers."""

from __future__ import annotations

import pytest
from results_folder import RUN, Folder, only, rows

from prunelib.scoring.statistics import wilson


def test_evaluations_count_errors_as_wrong_and_ignore_repeats(folder: Folder) -> None:
    folder.intervention("ig", "integrated_gradients", "chosen")
    folder.answers("ig", "11c0e")
    folder.answers("ig", "11111", repeat=1)
    folder.write()
    row = only(folder, "FROM evaluations")
    low, high = wilson(2, 5)
    assert row == {
        "run": RUN, "model": "m", "intervention": "ig", "method": "integrated_gradients",
        "role": "chosen", "layer": 1, "rate": 0.1, "control_seed": None, "task": "t",
        "split": "report", "purpose": "report", "shots": 2, "n": 5, "accuracy": 0.4,
        "copying_error": 0.2,
        "accuracy_low": pytest.approx(low), "accuracy_high": pytest.approx(high),
        "errors": 1, "engine": "transformers",
    }  # fmt: skip


def test_what_two_units_of_a_run_both_wrote_counts_once(folder: Folder) -> None:
    folder.intervention("ig", "integrated_gradients", "chosen")
    folder.intervention("ig", "integrated_gradients", "chosen", unit_id="choose-again")
    folder.answers("ig", "1100")
    folder.answers("ig", "1100", unit_id="eval-again")
    folder.write()
    assert only(folder, "FROM evaluations")["n"] == 4


def test_a_unit_may_serve_many_runs_and_foreign_units_do_not_count(folder: Folder) -> None:
    folder.intervention("ig", "integrated_gradients", "chosen")
    folder.answers("ig", "1100")
    folder.answers("ig", "1111", task="u", unit_id="eval-other")
    folder.write({"a-1": ["choose", "eval-ig"], "b-2": ["choose", "eval-ig", "eval-other"]})
    found = rows(folder, "SELECT run, task FROM evaluations ORDER BY ALL")
    assert [tuple(r.values()) for r in found] == [("a-1", "t"), ("b-2", "t"), ("b-2", "u")]


def test_a_set_with_two_origins_counts_for_both(folder: Folder) -> None:
    folder.intervention("same", "integrated_gradients", "grid")
    folder.intervention("same", "integrated_gradients", "grid", rate=0.2)
    folder.intervention("same", "integrated_gradients", "chosen")
    folder.intervention("same", "random", "control", seed=7)
    folder.answers("same", "10")
    folder.answers("same", "11", purpose="search")
    folder.write()
    found = rows(folder, "SELECT split, role, rate, accuracy FROM evaluations ORDER BY ALL")
    assert [tuple(r.values()) for r in found] == [
        ("report", "chosen", 0.1, 0.5),
        ("report", "control", 0.1, 0.5),
        ("search", "grid", 0.1, 1.0),
        ("search", "grid", 0.2, 1.0),
    ]


def test_grid_and_chosen(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", "integrated_gradients", "grid")
    folder.intervention("ig5", "integrated_gradients", "grid", rate=0.5, count=15)
    folder.intervention("ig", "integrated_gradients", "chosen")
    folder.answers("base", "10c0", purpose="search")
    folder.answers("ig", "111c", purpose="search")
    folder.answers("ig5", "000", purpose="search")  # its last answer is missing
    folder.answers("ig", "0000")
    folder.write()
    best, worst = rows(folder, "FROM grid")
    assert (best["intervention"], best["rate"], best["count"], best["n"]) == ("ig", 0.1, 3, 4)
    assert (best["accuracy"], best["baseline_accuracy"], best["difference"]) == (0.75, 0.25, 0.5)
    assert (best["accuracy_low"], best["accuracy_high"]) == pytest.approx(wilson(3, 4))
    assert best["copying_error"] == 0.25
    assert (worst["n"], worst["baseline_accuracy"]) == (3, pytest.approx(1 / 3))
    chosen = only(folder, "FROM chosen")
    assert chosen == {
        "run": RUN, "model": "m", "method": "integrated_gradients", "control_seed": None,
        "proxy": "t", "layer": 1, "rate": 0.1, "count": 3, "intervention": "ig",
        "search_accuracy": 0.75, "search_baseline_accuracy": 0.25, "search_copying_error": 0.25,
    }  # fmt: skip


def test_the_baseline_may_be_chosen(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.intervention("base", "integrated_gradients", "chosen", layer=None, rate=None, count=0)
    folder.answers("base", "1100", purpose="search")
    folder.answers("base", "1000")
    folder.write()
    assert only(folder, "FROM chosen")["search_accuracy"] == 0.5
    base, chosen = rows(folder, "FROM leaderboard")
    assert (base["method"], base["difference"]) == ("none", None)
    assert (chosen["method"], chosen["difference"], chosen["p_value"]) == (
        "integrated_gradients", 0.0, 1.0,
    )  # fmt: skip


def test_noise_floor(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.answers("base", "1100")
    folder.answers("base", "11c1", repeat=1)
    folder.write()
    row = only(folder, "FROM noise_floor")
    assert row == {
        "run": RUN, "model": "m", "n": 4, "changed": 0.5, "accuracy_difference": 0.25,
    }  # fmt: skip


def test_prompts_to_choose_from_do_not_dilute_the_search(folder: Folder) -> None:
    """The untouched model also answers prompts that attribution then chooses among."""
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", "integrated_gradients", "grid")
    folder.intervention("ig", "integrated_gradients", "chosen")
    folder.answers("base", "1100", purpose="search")
    folder.answers("base", "00000000", purpose="pool")
    folder.answers("ig", "1110", purpose="search")
    folder.write()
    (cell,) = rows(folder, "FROM grid")
    assert (cell["n"], cell["baseline_accuracy"], cell["difference"]) == (4, 0.5, 0.25)
    (chosen,) = rows(folder, "FROM chosen")
    assert (chosen["search_accuracy"], chosen["search_baseline_accuracy"]) == (0.75, 0.5)
