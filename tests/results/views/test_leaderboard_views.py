"""The views that compare methods, on hand-made rows with known answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from recomputed import difference_interval, drawn, flip_p, p_against_draws, share_interval
from results_folder import Folder, only, rows
from scipy.stats import false_discovery_control
from scipy.stats import t as student


@pytest.fixture
def compared(folder: Folder) -> Folder:
    """A baseline, a chosen ablation and two random controls on two tasks of unequal size."""
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", "integrated_gradients", "chosen")
    folder.intervention("r0", "random", "control", seed=0)
    folder.intervention("r1", "random", "control", seed=1)
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


def pairs(ours: str, *others: str) -> list[list[tuple[int, int]]]:
    """Of each query, the answers of an ablation beside those of one or several others."""
    return [[(int(our == "1"), int(mark == "1")) for mark in marks]
            for our, *marks in zip(ours, *others, strict=True)]


def ends(row: dict[str, Any], name: str = "difference") -> tuple[float, float]:
    return row[f"{name}_low"], row[f"{name}_high"]


def test_comparisons_with_the_baseline(compared: Folder) -> None:
    row = only(
        compared,
        "FROM comparisons WHERE method = 'integrated_gradients' AND reference = 'baseline' "
        "AND task = 't'",
    )
    # base 10c0c010 against ig 11111010: examples 1 to 4 become right, nothing is lost
    assert (row["n"], row["prompts"], row["queries"], row["sets"]) == (8, 8, 8, None)
    assert (row["accuracy"], row["reference_accuracy"]) == (0.75, 0.25)
    assert (row["only_this_right"], row["only_reference_right"]) == (4, 0)
    assert row["difference"] == 0.5
    assert row["p_value"] == pytest.approx(2 * 0.5**4 / 2)  # mid-p of McNemar's test
    assert ends(row) == pytest.approx(difference_interval(pairs("11111010", "10c0c010")))
    assert (row["copying_error"], row["reference_copying_error"]) == (0, 0.25)
    assert row["copying_p_value"] == pytest.approx(2 * 0.5**2 / 2)


def test_comparisons_with_random_keep_prompts_and_sets_together(compared: Folder) -> None:
    sql = "FROM comparisons WHERE reference = 'random' ORDER BY task"
    t, u = rows(compared, sql)
    assert {t["method"], u["method"]} == {"integrated_gradients"}  # random is not its own control
    # ig 11111010 - r0 10000010 = 01111000, ig - r1 00100011 = 1101100-1
    assert (t["n"], t["prompts"], t["queries"], t["sets"]) == (16, 8, 8, 2)
    assert (t["only_this_right"], t["only_reference_right"]) == (8, 1)
    assert t["difference"] == pytest.approx(7 / 16)
    beside, sets = pairs("11111010", "10c00c10", "0010cc11"), (4 / 8, 3 / 8)
    expected = drawn(7 / 16, difference_interval(beside), sets)
    assert ends(t) == pytest.approx(np.clip(expected, -1, 1))
    assert t["p_value"] == pytest.approx(p_against_draws(beside, sets=sets), rel=1e-6)
    assert (u["n"], u["only_this_right"], u["only_reference_right"]) == (4, 1, 1)
    assert u["p_value"] == 1


def test_a_single_random_set_gives_no_interval_and_no_p_value(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", "ig", "chosen")
    folder.intervention("r0", "random", "control", seed=0)
    for ablation, marks in (("base", "0000"), ("ig", "1110"), ("r0", "0100")):
        folder.answers(ablation, marks)
    folder.write()
    row = only(folder, "FROM comparisons WHERE reference = 'random'")
    assert (row["difference"], row["sets"], *ends(row), row["p_value"], row["q_value"]) == (
        0.5, 1, None, None, None, None)
    _, chosen, control = rows(folder, "FROM leaderboard")
    assert (chosen["difference_to_random"], *ends(chosen, "difference_to_random")) == (
        0.5, None, None)
    assert (chosen["random_rank"], chosen["random_sets"], chosen["random_p"]) == (1, 1, 0.5)
    assert (*ends(control, "accuracy"), *ends(control), control["p_value"]) == (None,) * 5


def test_every_way_to_ask_one_query_is_one_observation(folder: Folder) -> None:
    """Of eleven queries, asked a hundred times, one changes: that is one change."""
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", "ig", "chosen")
    for example in range(100):
        mark, changed = "10"[example % 2], example % 11 == 3
        place = {"query": f"q{example % 11}", "seed": example}
        folder.answers("base", "0" if changed else mark, **place)
        folder.answers("ig", "1" if changed else mark, **place)
    folder.write()
    row = only(folder, "FROM comparisons")
    assert (row["n"], row["queries"], row["only_this_right"], row["p_value"]) == (100, 11, 9, 1.0)
    assert row["difference_low"] < 0 < row["difference_high"]
    board = rows(folder, "FROM leaderboard")[1]
    assert (board["prompts"], board["queries"], board["p_value"]) == (100, 11, 1.0)


def test_nothing_switched_off_is_compared_like_any_choice(folder: Folder) -> None:
    """A search may choose the untouched model: no random sets are like it."""
    folder.intervention("base", "none", "baseline")
    folder.intervention("base", "ig", "chosen", layer=None, rate=None, count=0, site=None)
    folder.intervention("base", "random_search", "control", seed=0, layer=None, rate=None, count=0)
    folder.intervention("s1", "random_search", "control", seed=1)
    folder.answers("base", "1100")
    folder.answers("base", "1100", repeat=1)
    folder.answers("s1", "1000")
    folder.write()
    found = rows(folder, "FROM comparisons WHERE method = 'ig'")
    against = {row["reference"]: row for row in found}
    assert list(against) == ["baseline", "random_search"] and len(found) == 2
    assert (against["baseline"]["n"], against["random_search"]["n"]) == (4, 8)
    baseline = against["baseline"]
    assert (baseline["difference"], *ends(baseline), baseline["p_value"]) == (0, 0, 0, 1)
    base, ig, searched = rows(folder, "FROM leaderboard")
    assert (ig["method"], ig["layer"], ig["interventions"], ig["n"]) == ("ig", None, 1, 4)
    assert (ig["difference"], *ends(ig), ig["p_value"], ig["tasks_better"]) == (0, 0, 0, 1, 0)
    assert (ig["difference_to_random"], ig["random_sets"]) == (None, None)
    assert ig["difference_to_random_search"] == pytest.approx(0.125)
    assert (ig["random_search_rank"], ig["random_searches"]) == (2, 2)
    assert (base["n"], searched["n"], searched["interventions"]) == (4, 8, 2)


def test_every_choice_is_compared_with_random_searches_of_its_proxy(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.intervention("a", "first", "chosen")
    folder.intervention("b", "second", "chosen", proxy="v")
    folder.intervention("c", "third", "chosen", proxy="w")
    for seed in (0, 1):
        folder.intervention(f"t{seed}", "random_search", "control", seed=seed, layer=0)
        folder.intervention(f"v{seed}", "random_search", "control", seed=seed, layer=0, proxy="v")
    marks = {"base": "0000", "a": "1110", "b": "1110", "c": "1110", "t0": "1000", "t1": "1100",
             "v0": "1111", "v1": "1110"}
    for ablation, answers in marks.items():
        folder.answers(ablation, answers)
    folder.write()
    board = {row["method"]: row for row in rows(folder, "FROM leaderboard")}
    assert {m: r["difference_to_random_search"] for m, r in board.items()} == {
        "none": None, "random_search": None, "first": 0.375, "second": -0.125, "third": 0.125}
    # Of the searches of both proxies those of one seed are one draw.
    sets = {m: [r[f"random_search{end}"] for end in ("_rank", "_p")] + [r["random_searches"]]
            for m, r in board.items() if r["random_searches"]}
    assert sets == {"first": [1, pytest.approx(1 / 3), 2], "second": [3, 1, 2],
                    "third": [1, pytest.approx(1 / 3), 2]}
    beside = pairs("1110", "1000", "1100")
    assert ends(board["first"], "difference_to_random_search") == pytest.approx(np.clip(
        drawn(0.375, difference_interval(beside), (0.5, 0.25)), -1, 1))


def test_cells_that_are_missing_are_counted_and_not_compared(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", "ig", "chosen")
    for shots, marks in ((0, "1111"), (2, "0000")):
        folder.answers("base", marks, shots=shots)
    folder.answers("base", "0000", task="u")
    folder.answers("ig", "1000", shots=2)
    folder.write()
    base, ig = rows(folder, "FROM leaderboard")
    assert (base["missing_cells"], ig["missing_cells"]) == (0, 2)
    assert (ig["tasks"], ig["accuracy"], ig["difference"]) == (1, 0.25, 0.25)


def test_tasks_as_the_unit(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", "ig", "chosen")
    for task, marks in (("t", "1110"), ("u", "1100"), ("v", "1000"), ("w", "0000")):
        folder.answers("base", "1100", task=task)
        folder.answers("ig", marks, task=task)
    folder.write()
    row = rows(folder, "FROM leaderboard")[1]
    found = np.array([0.25, 0, -0.25, -0.5])
    assert (row["tasks_better"], row["tasks_worse"]) == (1, 2)
    assert row["task_sd"] == pytest.approx(found.std(ddof=1))
    half = student.ppf(0.975, 3) * found.std(ddof=1) / 2
    assert ends(row, "difference_new_tasks") == pytest.approx((-0.125 - half, -0.125 + half))


@pytest.fixture
def several(folder: Folder) -> Folder:
    """Three attributions: two chose the same cell on different proxies, one another cell."""
    folder.intervention("base", "none", "baseline")
    folder.intervention("a", "first", "chosen")
    folder.intervention("b", "second", "chosen", proxy="v")
    folder.intervention("c", "third", "chosen", layer=0, rate=0.2)
    for seed in (0, 1):
        for proxy in ("t", "v"):
            folder.intervention(f"r1{seed}", "random", "control", seed=seed, proxy=proxy)
        folder.intervention(f"r0{seed}", "random", "control", seed=seed, layer=0, rate=0.2)
    folder.intervention("searched", "random_search", "control", layer=0, rate=0.2, seed=0)
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
    assert (of_third["layer"], of_third["rate"], of_third["interventions"]) == (0, 0.2, 2)
    assert (of_third["n"], of_third["accuracy"], of_third["copying_error"]) == (8, 0.5, 0.25)
    assert board["random", "first, second"]["accuracy"] == 0.25
    compared = rows(several, "FROM comparisons WHERE reference = 'random' ORDER BY method")
    assert [(r["method"], r["n"], r["reference_accuracy"]) for r in compared] == [
        ("first", 8, 0.25), ("second", 8, 0.25), ("third", 8, 0.5)]
    assert {r["method"] for r in rows(several, "FROM comparisons WHERE reference = 'baseline'")
            } == {"first", "second", "third", "random", "random_search"}


def test_what_several_choices_share_counts_once(several: Folder) -> None:
    assert {r["prompts"] for r in rows(several, "FROM evaluations")} == {4}
    assert {r["n"] for r in rows(several, "FROM comparisons WHERE reference = 'baseline'")} == {4}
    copying = rows(several, "FROM copying WHERE method = 'random'")
    assert [(r["matched_to"], r["n"], r["copying_error"]) for r in copying] == [
        ("first, second", 8, 0.125), ("third", 8, 0.25)]


def test_choices_of_one_attribution_weigh_alike_whether_or_not_they_share_controls(
    folder: Folder
) -> None:
    """Three seeds, of which two chose the same cell."""
    folder.intervention("base", "none", "baseline")
    folder.answers("base", "0000")
    for seed, (marks, layer) in enumerate((("1111", 1), ("1100", 1), ("1000", 0))):
        folder.intervention(f"s{seed}", "ig", "chosen", seed=seed, layer=layer)
        folder.answers(f"s{seed}", marks)
    for layer, marks in ((1, "1100"), (0, "1111")):
        folder.intervention(f"r{layer}", "random", "control", seed=0, layer=layer)
        folder.answers(f"r{layer}", marks)
    folder.write()
    row = only(folder, "FROM leaderboard WHERE method = 'ig'")
    assert row["difference_to_random"] == pytest.approx((0.5 + 0 - 0.75) / 3)


def test_a_random_control_of_each_task_counts_on_its_task(folder: Folder) -> None:
    """Both tasks' choices are of one cell, so share their control; another's is of all tasks."""
    folder.intervention("base", "none", "baseline")
    folder.intervention("all", "for_all", "chosen", proxy="v")
    folder.intervention("r", "random", "control", seed=0, proxy="v")
    for task, marks in (("t", "1110"), ("u", "1111")):
        folder.intervention(f"own-{task}", "each", "chosen", only_task=task, proxy="v")
        folder.intervention("r", "random", "control", seed=0, only_task=task, proxy="v")
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
    assert {r["prompts"] for r in rows(folder, "FROM evaluations")} == {4}


def test_q_values_are_those_of_each_family(several: Folder) -> None:
    """Chosen ablations alone; the one of two names counts once, controls not at all."""
    several.rows.clear()
    several.intervention("base", "none", "baseline")
    for method, ablation in (("first", "a"), ("second", "a"), ("third", "c")):
        several.intervention(ablation, method, "chosen", layer=0 if ablation == "c" else 1)
    for seed in range(3):
        several.intervention(f"r1{seed}", "random", "control", seed=seed)
        several.intervention(f"r0{seed}", "random", "control", seed=seed, layer=0)
    marks = {"base": "00c000c000", "a": "1111100000", "c": "1110000011", "r10": "1c000cc000",
             "r11": "00000c1000", "r12": "0100000001", "r00": "c010000000", "r01": "0000000000",
             "r02": "00ccc00001"}
    for ablation, answers in marks.items():
        for task in ("t", "u"):
            several.answers(ablation, answers if task == "t" else answers[::-1][:7], task=task)
    root = several.root.parent / "again"
    again = Folder(root)
    again.rows = several.rows
    again.write()
    found = rows(again, "FROM comparisons")
    assert {row["q_value"] for row in found if row["role"] == "control"} == {None}
    for reference in ("baseline", "random"):
        family = [r for r in found if r["reference"] == reference and r["role"] == "chosen"]
        assert len(family) == 6
        for kind in ("", "copying_"):
            p = {(r["intervention"], r["task"]): r[f"{kind}p_value"] for r in family}
            q = dict(zip(p, false_discovery_control(list(p.values())), strict=True))
            assert len(q) == 4
            assert [r[f"{kind}q_value"] for r in family] == pytest.approx(
                [q[r["intervention"], r["task"]] for r in family])


def test_leaderboard(compared: Folder) -> None:
    base, chosen, control = rows(compared, "FROM leaderboard")
    assert [r["method"] for r in (base, chosen, control)] == [
        "none", "integrated_gradients", "random",
    ]  # fmt: skip
    assert (base["layer"], base["difference"], base["p_value"]) == (None, None, None)
    assert base["accuracy"] == pytest.approx((3 / 8 + 1 / 2) / 2 - 1 / 16)
    assert base["copying_error"] == pytest.approx((2 / 8 + 1 / 2) / 2)
    assert (chosen["layer"], chosen["rate"], chosen["interventions"]) == (1, 0.1, 1)
    assert (chosen["tasks"], chosen["n"], chosen["prompts"], chosen["queries"]) == (2, 10, 10, 10)
    # Tasks count the same whatever their size: t 6/8, u 1/2.
    assert chosen["accuracy"] == pytest.approx((6 / 8 + 1 / 2) / 2)
    assert ends(chosen, "accuracy") == pytest.approx(share_interval(
        [[int(mark)] for mark in "11111010"], [[1], [0]]))
    assert chosen["difference"] == pytest.approx((4 / 8 + 0) / 2)
    both = pairs("11111010", "10c0c010"), pairs("10", "1c")
    assert ends(chosen) == pytest.approx(difference_interval(*both))
    assert chosen["p_value"] == pytest.approx(flip_p(*both))
    assert chosen["difference_to_random"] == pytest.approx((7 / 16 + 0) / 2)
    assert (control["interventions"], control["n"], control["prompts"]) == (2, 20, 10)
    assert control["difference_to_random"] is None
    assert control["difference_to_random_low"] is None
    # A set is a draw over all tasks: accuracies 2/8 and 0, 3/8 and 1.
    own = [[[int(mark == "1") for mark in marks] for marks in zip(*sets, strict=True)]
           for sets in (("10c00c10", "0010cc11"), ("c0", "11"))]
    assert ends(control, "accuracy") == pytest.approx(np.clip(
        drawn(control["accuracy"], share_interval(*own), (1 / 8, 11 / 16)), 0, 1))


def test_leaderboard_takes_the_shots_of_a_query_as_one_cluster(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", "integrated_gradients", "chosen")
    for shots, (before, after) in {1: ("0000", "1100"), 2: ("0000", "1000")}.items():
        folder.answers("base", before, shots=shots)
        folder.answers("ig", after, shots=shots)
    folder.write()
    row = only(folder, "FROM leaderboard WHERE method <> 'none'")
    assert (row["difference"], row["prompts"], row["queries"]) == (3 / 8, 8, 4)
    beside = [[(1, 0), (1, 0)], [(1, 0), (0, 0)], [(0, 0), (0, 0)], [(0, 0), (0, 0)]]
    assert ends(row) == pytest.approx(difference_interval(beside))
    assert row["p_value"] == pytest.approx(flip_p(beside)) == 0.25
    assert row["difference_to_random"] is None
