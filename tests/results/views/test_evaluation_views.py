"""The views on single interventions, on hand-made rows with known answers."""

from __future__ import annotations

from collections import Counter

import pytest
from recomputed import score_interval, share_interval
from results_folder import RUN, Folder, only, rows


def test_answers_have_their_run_and_method_without_a_join(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", "integrated_gradients", "chosen")
    folder.intervention("ig", "wanda", "chosen")
    folder.intervention("tried", "wanda", "grid")
    folder.answers("base", "10")
    folder.answers("base", "1", purpose="pool")
    folder.answers("ig", "1ce")
    folder.answers("tried", "1", purpose="search")
    folder.write()
    found = rows(folder, "FROM answers")
    assert {(r["run"], r["model"], r["task"], r["shots"]) for r in found} == {(RUN, "m", "t", 2)}
    assert Counter((r["method"], r["role"], r["purpose"], r["query"], r["prediction"], r["correct"],
                    r["copied"], r["failed"]) for r in found) == Counter([
        ("none", "baseline", "report", "q0", "a", 1, 0, 0),
        ("none", "baseline", "report", "q1", "z", 0, 0, 0),
        ("none", "baseline", "pool", "q0", "a", 1, 0, 0),
        *((method, "chosen", "report", *answer) for method in ("integrated_gradients", "wanda")
          for answer in (("q0", "a", 1, 0, 0), ("q1", "b", 0, 1, 0), ("q2", None, 0, 0, 1))),
        ("wanda", "grid", "search", "q0", "a", 1, 0, 0)])


def test_evaluations_count_errors_as_wrong_and_ignore_repeats(folder: Folder) -> None:
    folder.intervention("ig", "integrated_gradients", "chosen")
    folder.answers("ig", "11c0e")
    folder.answers("ig", "11111", repeat=1)
    folder.write()
    row = only(folder, "FROM evaluations")
    low, high = score_interval(0.4, 5)
    copied_low, copied_high = score_interval(0.2, 5)
    assert row == {
        "run": RUN, "model": "m", "intervention": "ig", "method": "integrated_gradients",
        "role": "chosen", "layer": 1, "rate": 0.1, "control_seed": None, "task": "t",
        "split": "report", "purpose": "report", "shots": 2, "prompts": 5, "queries": 5,
        "accuracy": 0.4, "copying_error": 0.2,
        "accuracy_low": pytest.approx(low), "accuracy_high": pytest.approx(high),
        "copying_error_low": pytest.approx(copied_low),
        "copying_error_high": pytest.approx(copied_high),
        "errors": 1, "engine": "transformers",
    }  # fmt: skip


def test_answers_to_one_query_are_a_cluster(folder: Folder) -> None:
    folder.intervention("ig", "integrated_gradients", "chosen")
    for seed, marks in enumerate(("1100", "1000", "110c")):
        folder.answers("ig", marks, seed=seed)
    folder.answers("ig", "1", seed=3)
    folder.write()
    row = only(folder, "FROM evaluations")
    assert (row["prompts"], row["queries"], row["accuracy"]) == (13, 4, pytest.approx(6 / 13))
    assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx(share_interval(
        [[1, 1, 1, 1], [1, 0, 1], [0, 0, 0], [0, 0, 0]]))


@pytest.mark.parametrize(("marks", "accuracy"), [("1", 1), ("0", 0), ("000", 0), ("eee", 0)])
def test_intervals_at_the_ends_agree_between_views(folder: Folder, marks: str, accuracy: int
                                                   ) -> None:
    folder.intervention("ig", "integrated_gradients", "chosen")
    folder.answers("ig", marks)
    folder.write()
    expected = score_interval(accuracy, len(marks))
    for view in ("evaluations", "leaderboard"):
        row = only(folder, f"FROM {view}")
        assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx(expected)


def test_what_two_units_of_a_run_both_wrote_counts_once(folder: Folder) -> None:
    folder.intervention("ig", "integrated_gradients", "chosen")
    folder.intervention("ig", "integrated_gradients", "chosen", unit_id="choose-again")
    folder.answers("ig", "1100")
    folder.answers("ig", "1100", unit_id="eval-again")
    folder.write()
    assert only(folder, "FROM evaluations")["prompts"] == 4


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


def test_noise_floor(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.answers("base", "1100")
    folder.answers("base", "11c1", repeat=1)
    folder.write()
    row = only(folder, "FROM noise_floor")
    assert row == {
        "run": RUN, "model": "m", "prompts": 4, "queries": 4, "changed": 0.5,
        "accuracy_difference": 0.25,
    }  # fmt: skip
