"""The views that compare methods, on hand-made rows with known answers."""

from __future__ import annotations

import pytest
from results_folder import Folder, only, rows
from scipy.stats import binomtest, false_discovery_control

from prunelib.scoring.statistics import paired_bootstrap, sign_flip_p


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
    assert (chosen["layer"], chosen["rate"], chosen["interventions"]) == (1, 0.1, 1)
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
    assert control["interventions"] == 2
    assert control["n"] == 20
    assert control["difference_to_random"] is None
    assert control["difference_to_random_low"] is None


def test_leaderboard_averages_the_shots_of_a_query_before_resampling(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", "integrated_gradients", "chosen")
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
