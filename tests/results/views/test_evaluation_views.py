"""Every view on hand-made rows with known answers."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq
import pytest
from results_folder import NOON, RUN, Folder
from scipy.stats import binomtest, false_discovery_control

from prunelib.results.query import query
from prunelib.scoring.statistics import paired_bootstrap, sign_flip_p, wilson


def rows(folder: Folder, sql: str) -> list[dict[str, Any]]:
    return query(folder.root, sql).to_pylist()


def only(folder: Folder, sql: str) -> dict[str, Any]:
    (row,) = rows(folder, sql)
    return row


@pytest.fixture
def compared(folder: Folder) -> Folder:
    """A baseline, a chosen ablation and two random controls on two tasks of unequal size."""
    folder.ablation("base", "none", "baseline")
    folder.ablation("ig", "integrated_gradients", "chosen")
    folder.ablation("r0", "random", "control", seed=0)
    folder.ablation("r1", "random", "control", seed=1)
    marks = {  # task t, task u
        "base": ("10c0c010", "1c"),
        "ig": ("11111010", "10"),
        "r0": ("10c00c10", "c0"),
        "r1": ("0010cc11", "11"),
    }
    for ablation, (t, u) in marks.items():
        folder.answers(ablation, t)
        folder.answers(ablation, u, task="u")
    folder.write()
    return folder


def test_evaluations_count_errors_as_wrong_and_ignore_repeats(folder: Folder) -> None:
    folder.ablation("ig", "integrated_gradients", "chosen")
    folder.answers("ig", "11c0e")
    folder.answers("ig", "11111", repeat=1)
    folder.write()
    row = only(folder, "FROM evaluations")
    low, high = wilson(2, 5)
    assert row == {
        "run": RUN, "model": "m", "ablation": "ig", "method": "integrated_gradients",
        "role": "chosen", "layer": 1, "rate": 0.1, "control_seed": None, "task": "t",
        "split": "report", "shots": 2, "n": 5, "accuracy": 0.4, "copying_error": 0.2,
        "accuracy_low": pytest.approx(low), "accuracy_high": pytest.approx(high),
        "errors": 1, "engine": "transformers",
    }  # fmt: skip


def test_what_two_units_of_a_run_both_wrote_counts_once(folder: Folder) -> None:
    folder.ablation("ig", "integrated_gradients", "chosen")
    folder.ablation("ig", "integrated_gradients", "chosen", unit_id="choose-again")
    folder.answers("ig", "1100")
    folder.answers("ig", "1100", unit_id="eval-again")
    folder.write()
    assert only(folder, "FROM evaluations")["n"] == 4


def test_a_unit_may_serve_many_runs_and_foreign_units_do_not_count(folder: Folder) -> None:
    folder.ablation("ig", "integrated_gradients", "chosen")
    folder.answers("ig", "1100")
    folder.answers("ig", "1111", task="u", unit_id="eval-other")
    folder.write({"a-1": ["choose", "eval-ig"], "b-2": ["choose", "eval-ig", "eval-other"]})
    found = rows(folder, "SELECT run, task FROM evaluations ORDER BY ALL")
    assert [tuple(r.values()) for r in found] == [("a-1", "t"), ("b-2", "t"), ("b-2", "u")]


def test_a_set_with_two_origins_counts_for_both(folder: Folder) -> None:
    folder.ablation("same", "integrated_gradients", "grid")
    folder.ablation("same", "integrated_gradients", "grid", rate=0.2)
    folder.ablation("same", "integrated_gradients", "chosen")
    folder.ablation("same", "random", "control", seed=7)
    folder.answers("same", "10")
    folder.answers("same", "11", split="search")
    folder.write()
    found = rows(folder, "SELECT split, role, rate, accuracy FROM evaluations ORDER BY ALL")
    assert [tuple(r.values()) for r in found] == [
        ("report", "chosen", 0.1, 0.5),
        ("report", "control", 0.1, 0.5),
        ("search", "grid", 0.1, 1.0),
        ("search", "grid", 0.2, 1.0),
    ]


def test_grid_and_chosen(folder: Folder) -> None:
    folder.ablation("base", "none", "baseline")
    folder.ablation("ig", "integrated_gradients", "grid")
    folder.ablation("ig5", "integrated_gradients", "grid", rate=0.5, count=15)
    folder.ablation("ig", "integrated_gradients", "chosen")
    folder.answers("base", "10c0", split="search")
    folder.answers("ig", "111c", split="search")
    folder.answers("ig5", "000", split="search")  # its last answer is missing
    folder.answers("ig", "0000")
    folder.write()
    best, worst = rows(folder, "FROM grid")
    assert (best["ablation"], best["rate"], best["count"], best["n"]) == ("ig", 0.1, 3, 4)
    assert (best["accuracy"], best["baseline_accuracy"], best["difference"]) == (0.75, 0.25, 0.5)
    assert (best["accuracy_low"], best["accuracy_high"]) == pytest.approx(wilson(3, 4))
    assert best["copying_error"] == 0.25
    assert (worst["n"], worst["baseline_accuracy"]) == (3, pytest.approx(1 / 3))
    chosen = only(folder, "FROM chosen")
    assert chosen == {
        "run": RUN, "model": "m", "method": "integrated_gradients", "control_seed": None,
        "proxy": "t", "layer": 1, "rate": 0.1, "count": 3, "ablation": "ig",
        "search_accuracy": 0.75, "search_baseline_accuracy": 0.25, "search_copying_error": 0.25,
    }  # fmt: skip


def test_the_baseline_may_be_chosen(folder: Folder) -> None:
    folder.ablation("base", "none", "baseline")
    folder.ablation("base", "integrated_gradients", "chosen", layer=None, rate=None, count=0)
    folder.answers("base", "1100", split="search")
    folder.answers("base", "1000")
    folder.write()
    assert only(folder, "FROM chosen")["search_accuracy"] == 0.5
    base, chosen = rows(folder, "FROM leaderboard")
    assert (base["method"], base["difference"]) == ("none", None)
    assert (chosen["method"], chosen["difference"], chosen["p_value"]) == (
        "integrated_gradients", 0.0, 1.0,
    )  # fmt: skip


def test_comparisons_with_the_baseline(compared: Folder) -> None:
    row = only(
        compared,
        "FROM comparisons WHERE method = 'integrated_gradients' AND reference = 'baseline' "
        "AND task = 't'",
    )
    # base 10c0c010 against ig 11111010: examples 1 to 4 become right, nothing is lost
    assert (row["n"], row["accuracy"], row["reference_accuracy"]) == (8, 0.75, 0.25)
    assert (row["only_this_right"], row["only_reference_right"]) == (4, 0)
    assert row["difference"] == 0.5
    assert row["p_value"] == pytest.approx(binomtest(4, 4).pvalue)
    interval = (row["difference_low"], row["difference_high"])
    assert interval == pytest.approx(paired_bootstrap([0, 1], [4, 4]))
    assert (row["copying_error"], row["reference_copying_error"]) == (0, 0.25)
    assert row["copying_p_value"] == pytest.approx(binomtest(0, 2).pvalue)


def test_comparisons_with_random_keep_prompts_together(compared: Folder) -> None:
    sql = "FROM comparisons WHERE reference = 'random' ORDER BY task"
    t, u = rows(compared, sql)
    assert {t["method"], u["method"]} == {"integrated_gradients"}  # random is not its own control
    # ig 11111010 - r0 10000010 = 01111000, ig - r1 00100011 = 1101100-1
    assert (t["n"], t["only_this_right"], t["only_reference_right"]) == (16, 8, 1)
    assert t["difference"] == pytest.approx(7 / 16)
    values, counts = [-0.5, 0, 0.5, 1], [1, 2, 2, 3]
    assert t["p_value"] == pytest.approx(sign_flip_p(values, counts))
    assert (t["difference_low"], t["difference_high"]) == pytest.approx(
        paired_bootstrap(values, counts)
    )
    assert (u["n"], u["only_this_right"], u["only_reference_right"]) == (4, 1, 1)


@pytest.fixture
def several(folder: Folder) -> Folder:
    """Three attributions: two chose the same cell on different proxies, one another cell."""
    folder.ablation("base", "none", "baseline")
    folder.ablation("a", "first", "chosen")
    folder.ablation("b", "second", "chosen", proxy="v")
    folder.ablation("c", "third", "chosen", layer=0, rate=0.2)
    for seed in (0, 1):
        for proxy in ("t", "v"):
            folder.ablation(f"r1{seed}", "random", "control", seed=seed, proxy=proxy)
        folder.ablation(f"r0{seed}", "random", "control", seed=seed, layer=0, rate=0.2)
    folder.ablation("searched", "random_search", "control", layer=0, rate=0.2, seed=0)
    marks = {"base": "1000", "a": "1100", "b": "1110", "c": "1111", "searched": "0000",
             "r10": "1000", "r11": "c100", "r00": "c001", "r01": "c111"}
    for ablation, answers in marks.items():
        folder.answers(ablation, answers)
    folder.write()
    return folder


def test_every_choice_is_compared_with_its_own_controls(several: Folder) -> None:
    board = {(r["method"], r["matched_to"]): r for r in rows(several, "FROM leaderboard")}
    assert list(board) == [
        ("none", None), ("first", None), ("random", "first, second"), ("random", "third"),
        ("random_search", None), ("second", None), ("third", None),
    ]  # fmt: skip
    found = {key[0]: row["difference_to_random"] for key, row in board.items()
             if row["difference_to_random"] is not None}
    assert found == {"first": 0.25, "second": 0.5, "third": 0.5}
    of_third = board["random", "third"]
    assert (of_third["layer"], of_third["rate"], of_third["ablations"]) == (0, 0.2, 2)
    assert (of_third["n"], of_third["accuracy"], of_third["copying_error"]) == (8, 0.5, 0.25)
    assert board["random", "first, second"]["accuracy"] == 0.25
    compared = rows(several, "FROM comparisons WHERE reference = 'random'")
    assert [(r["method"], r["n"], r["reference_accuracy"]) for r in compared] == [
        ("first", 8, 0.25), ("second", 8, 0.25), ("third", 8, 0.5)]
    assert {r["method"] for r in rows(several, "FROM comparisons WHERE reference = 'baseline'")
            } == {"first", "second", "third", "random", "random_search"}


def test_what_several_choices_share_counts_once(several: Folder) -> None:
    assert {r["n"] for r in rows(several, "FROM evaluations")} == {4}
    assert {r["n"] for r in rows(several, "FROM comparisons WHERE reference = 'baseline'")} == {4}
    copying = rows(several, "FROM copying WHERE method = 'random'")
    assert [(r["matched_to"], r["n"], r["copying_error"]) for r in copying] == [
        ("first, second", 8, 0.125), ("third", 8, 0.25)]


def test_choices_of_one_attribution_weigh_alike_whether_or_not_they_share_controls(
    folder: Folder
) -> None:
    """Three seeds, of which two chose the same cell."""
    folder.ablation("base", "none", "baseline")
    folder.answers("base", "0000")
    for seed, (marks, layer) in enumerate((("1111", 1), ("1100", 1), ("1000", 0))):
        folder.ablation(f"s{seed}", "ig", "chosen", seed=seed, layer=layer)
        folder.answers(f"s{seed}", marks)
    for layer, marks in ((1, "1100"), (0, "1111")):
        folder.ablation(f"r{layer}", "random", "control", seed=0, layer=layer)
        folder.answers(f"r{layer}", marks)
    folder.write()
    row = only(folder, "FROM leaderboard WHERE method = 'ig'")
    assert row["difference_to_random"] == pytest.approx((0.5 + 0 - 0.75) / 3)


def test_a_random_control_of_each_task_counts_on_its_task(folder: Folder) -> None:
    """Both tasks' choices are of one cell, so share their control; another's is of all tasks."""
    folder.ablation("base", "none", "baseline")
    folder.ablation("all", "for_all", "chosen", proxy="v")
    folder.ablation("r", "random", "control", seed=0, proxy="v")
    for task, marks in (("t", "1110"), ("u", "1111")):
        folder.ablation(f"own-{task}", "each", "chosen", only_task=task, proxy="v")
        folder.ablation("r", "random", "control", seed=0, only_task=task, proxy="v")
        folder.answers(f"own-{task}", marks, task=task)
        folder.answers("base", "0000", task=task)
        folder.answers("all", "0000", task=task)
        folder.answers("r", "1000", task=task)
    folder.write()
    board = {(r["method"], r["matched_to"]): (r["n"], r["difference_to_random"])
             for r in rows(folder, "FROM leaderboard")}
    assert board == {("none", None): (8, None), ("each", None): (8, 0.625),
                     ("for_all", None): (8, -0.25), ("random", "each"): (8, None),
                     ("random", "for_all"): (8, None)}
    assert {r["n"] for r in rows(folder, "FROM evaluations")} == {4}


def test_q_values_are_those_of_each_family(compared: Folder) -> None:
    found = rows(compared, "FROM comparisons")
    for reference in ("baseline", "random"):
        family = [r for r in found if r["reference"] == reference]
        assert len(family) == {"baseline": 6, "random": 2}[reference]
        expected = false_discovery_control([r["p_value"] for r in family])
        assert [r["q_value"] for r in family] == pytest.approx(expected)


def test_leaderboard(compared: Folder) -> None:
    base, chosen, control = rows(compared, "FROM leaderboard")
    assert [r["method"] for r in (base, chosen, control)] == [
        "none", "integrated_gradients", "random",
    ]  # fmt: skip
    assert (base["layer"], base["difference"], base["p_value"]) == (None, None, None)
    assert base["accuracy"] == pytest.approx((3 / 8 + 1 / 2) / 2 - 1 / 16)
    assert base["copying_error"] == pytest.approx((2 / 8 + 1 / 2) / 2)
    assert (chosen["layer"], chosen["rate"], chosen["ablations"]) == (1, 0.1, 1)
    assert (chosen["tasks"], chosen["n"]) == (2, 10)
    # Tasks count the same whatever their size: t 6/8, u 1/2.
    assert chosen["accuracy"] == pytest.approx((6 / 8 + 1 / 2) / 2)
    assert chosen["difference"] == pytest.approx((4 / 8 + 0) / 2)
    sample = ([0, 1, 0], [4, 4, 2])
    assert (chosen["difference_low"], chosen["difference_high"]) == pytest.approx(
        paired_bootstrap(*sample, strata=["t", "t", "u"])
    )
    assert chosen["p_value"] == pytest.approx(sign_flip_p(*sample, strata=["t", "t", "u"]))
    assert chosen["difference_to_random"] == pytest.approx((7 / 16 + 0) / 2)
    assert control["ablations"] == 2
    assert control["n"] == 20
    assert control["difference_to_random"] is None
    assert control["difference_to_random_low"] is None


def test_leaderboard_averages_the_shots_of_a_query_before_resampling(folder: Folder) -> None:
    folder.ablation("base", "none", "baseline")
    folder.ablation("ig", "integrated_gradients", "chosen")
    for shots, (before, after) in {1: ("0000", "1100"), 2: ("0000", "1000")}.items():
        folder.answers("base", before, shots=shots)
        folder.answers("ig", after, shots=shots)
    folder.write()
    row = only(folder, "FROM leaderboard WHERE method <> 'none'")
    values, counts = [0, 0.5, 1], [2, 1, 1]
    assert row["difference"] == pytest.approx(3 / 8)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(
        paired_bootstrap(values, counts)
    )
    assert row["p_value"] == pytest.approx(sign_flip_p(values, counts))
    assert row["difference_to_random"] is None


def test_copying_against_chance(folder: Folder) -> None:
    folder.ablation("ig", "integrated_gradients", "chosen")
    unit = {"answers": ["b", "c", "b"], "demonstrations": ["x", "y", "z"]}
    folder.answers("ig", "1c", **unit, gold="a", copied_position=2)
    folder.answers("ig", "c0", **unit, gold="d", copied_position=1, seed=1)
    folder.answers("ig", "1111", **unit, gold="b", seed=2)
    folder.write()
    row = only(folder, "FROM copying")
    assert (row["n"], row["accuracy"], row["copying_error"]) == (8, 0.625, 0.25)
    assert row["copy_share"] == pytest.approx(2 / 3)
    assert row["copied_last_share"] == 0.5
    # Gold answers: a 1/4, b 1/2, d 1/4. A wrong answer other than a (or than d) is b with
    # probability (1/2) / (3/4); c is never gold. Three answers are wrong.
    assert row["chance"] == pytest.approx(3 * (2 / 3) / 8)


def test_copying_without_errors_has_no_shares(folder: Folder) -> None:
    folder.ablation("ig", "integrated_gradients", "chosen")
    folder.answers("ig", "111")
    folder.write()
    row = only(folder, "FROM copying")
    assert (row["copy_share"], row["copied_last_share"], row["chance"]) == (None, None, 0.0)


def test_completeness(folder: Folder) -> None:
    for example, gap in enumerate([0.1, -0.2, 0.3]):
        row = {
            "model": "m", "method": "integrated_gradients", "objective": "copy_shift",
            "proxy": "vowel_counting", "seed": 0, "layer": 0,
            "example": example, "nodes": 8, "total": gap, "delta": 0.0, "gap": gap,
            "unit_id": "layer-0",
        }  # fmt: skip
        folder.add("completeness_gaps", row)
    folder.add("completeness_gaps", row | {"nodes": 4, "gap": 9.0})  # an earlier, coarser try
    for index in range(2):
        row = {
            "model": "m", "method": "integrated_gradients", "objective": "copy_shift",
            "proxy": "vowel_counting", "shots": 3, "format": "arrow", "seed": 0,
            "site": "mlp_hidden", "layer": 0, "index": index, "score": 0.5, "rank": index + 1,
            "prompts": 3, "nodes": 8, "error_estimate": 0.01, "completeness_error": 0.2,
            "unit_id": "layer-0",
        }  # fmt: skip
        folder.add("attributions", row)
    folder.write()
    row = only(folder, "FROM completeness")
    assert row == {
        "run": RUN, "model": "m", "method": "integrated_gradients", "objective": "copy_shift",
        "proxy": "vowel_counting", "seed": 0, "layer": 0, "prompts": 3, "nodes": 8,
        "error_estimate": 0.01, "gap_median": pytest.approx(0.2),
        "gap_p95": pytest.approx(0.29), "gap_max": 0.3,
    }  # fmt: skip


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


def test_files_of_before_starts_were_measured_can_be_read(folder: Folder) -> None:
    folder.attempt("u1", "done", 0, seconds=12.0)
    folder.write()
    (file,) = (folder.root / "units").glob("*.parquet")
    older = pq.read_table(file).drop_columns(["start_seconds", "switch_seconds"])
    pq.write_table(older, file)
    costs = only(folder, "FROM costs")
    assert (costs["seconds_per_unit"], costs["starts"], costs["switches"]) == (12.0, 0, 0)


def test_noise_floor(folder: Folder) -> None:
    folder.ablation("base", "none", "baseline")
    folder.answers("base", "1100")
    folder.answers("base", "11c1", repeat=1)
    folder.write()
    row = only(folder, "FROM noise_floor")
    assert row == {
        "run": RUN, "model": "m", "n": 4, "changed": 0.5, "accuracy_difference": 0.25,
    }  # fmt: skip
