"""The views on the search and its choice, on hand-made rows with known answers."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest
from recomputed import score_interval
from results_folder import RUN, Folder, only, rows


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
    assert (best["accuracy_low"], best["accuracy_high"]) == pytest.approx(score_interval(3 / 4, 4))
    assert best["copying_error"] == 0.25
    assert (worst["n"], worst["baseline_accuracy"]) == (3, pytest.approx(1 / 3))
    chosen = only(folder, "FROM chosen")
    assert chosen == {
        "run": RUN, "model": "m", "method": "integrated_gradients", "control_seed": None,
        "proxy": "t", "only_task": None, "layer": 1, "rate": 0.1, "count": 3,
        "intervention": "ig", "search_n": 4, "search_accuracy": 0.75,
        "search_baseline_accuracy": 0.25, "search_difference": 0.5, "search_copying_error": 0.25,
        # two of four answers differ from the untouched model's
        "detectable": pytest.approx(2.8 * sqrt(3 / 6 / 4)), "tied": 0, "random_sets": 0,
        "random_sets_as_good": 0, "random_sets_p": None, "random_searches": 0,
        "random_searches_as_good": 0, "random_searches_p": None,
        "warnings": "too few search examples to show so small a gain",
    }  # fmt: skip


def test_the_baseline_may_be_chosen(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.intervention("base", "integrated_gradients", "chosen", layer=None, rate=None, count=0)
    folder.answers("base", "1100", purpose="search")
    folder.answers("base", "1000")
    folder.write()
    chosen = only(folder, "FROM chosen")
    assert (chosen["search_accuracy"], chosen["tied"], chosen["count"]) == (0.5, None, 0)
    base, chosen = rows(folder, "FROM leaderboard")
    assert (base["method"], base["difference"]) == ("none", None)
    assert (chosen["method"], chosen["difference"], chosen["p_value"]) == (
        "integrated_gradients", 0.0, 1.0,
    )  # fmt: skip


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


def grid(folder: Folder, cells: dict[str, str], chosen: str | None, **changes: Any) -> None:
    """A search: intervention → marks on the search examples, and what was chosen (``base``: none).

    Marks of an untouched model come under ``base``.
    """
    for name, marks in cells.items():
        if name != "base":
            folder.intervention(name, "ig", "grid", **changes)
        folder.answers(name, marks, purpose="search", **changes)
    if chosen == "base":
        changes = {"site": None, "layer": None, "rate": None, "count": 0}
    if chosen is not None:
        folder.intervention(chosen, "ig", "chosen", **changes)


def test_nothing_chosen_says_what_the_search_could_have_shown(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    # the best cell (of those on all examples) gains one answer of ten and loses none
    grid(folder, {"base": "1100000000", "a": "1110000000", "b": "1000000000", "c": "1111"}, "base")
    folder.write()
    row = only(folder, "FROM chosen")
    assert row["detectable"] == pytest.approx(2.8 * sqrt(2 / 12 / 10))
    assert (row["search_difference"], row["tied"]) == (0, None)
    assert row["warnings"] == ("nothing is switched off, as no cell beats the untouched model; "
                               "too few search examples to show so small a gain")


@pytest.mark.parametrize(("mark", "said"), [("0", "0%"), ("1", "100%")])
def test_a_proxy_at_its_end_is_said(mark: str, said: str, folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    grid(folder, {"base": mark * 9, "a": mark * 9}, "a")
    folder.write()
    assert only(folder, "FROM chosen")["warnings"] == (
        "no better than the untouched model in the search; "
        f"the untouched model is at {said} on the proxy")


def test_ties_are_cells_with_equal_answers_and_margins(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.answers("base", "0" * 30, purpose="search")
    for name, marks, margin in (("a", "1" * 30, 0.5), ("b", "1" * 30, 0.5), ("c", "1" * 30, 0.6),
                                ("d", "1" * 29 + "0", 0.5), ("e", "1" * 29, 0.5)):
        folder.intervention(name, "ig", "grid")
        folder.answers(name, marks, purpose="search", margin=margin)
    folder.intervention("a", "ig", "grid", rate=0.2)  # the same neurons at another rate: no tie
    folder.intervention("b", "other", "grid")
    folder.intervention("a", "ig", "chosen")
    folder.write()
    row = only(folder, "FROM chosen")
    assert row["tied"] == 1
    assert row["warnings"] == ("the untouched model is at 0% on the proxy; "
                               "other cells are equal in all that the rule looks at")


def test_a_choice_among_random_sets_and_random_searches(folder: Folder) -> None:
    """Means over tasks decide: the choice has 3/4 and 1/2, so 5/8."""
    folder.intervention("base", "none", "baseline")
    folder.answers("base", "0" * 30, purpose="search")
    folder.intervention("a", "ig", "grid")
    folder.intervention("a", "ig", "chosen")
    folder.answers("a", "1" * 30, purpose="search")
    sets, searches = {"s0": ("1111", "00"), "s1": ("1110", "10")}, {
        "r0": ("1100", "11"), "r1": ("0000", "10"), "base": ("0000", "00")}
    for seed, name in enumerate(sets):
        folder.intervention(name, "random", "control", seed=seed)
    for seed, name in enumerate(searches):
        folder.intervention(name, "random_search", "control", seed=seed, layer=0)
    folder.intervention("s9", "random", "control", layer=0)  # of another choice
    for name, marks in ({"a": ("1110", "10"), "s9": ("1111", "11")} | sets | searches).items():
        for task, of_task in zip(("t", "u"), marks, strict=True):
            folder.answers(name, of_task, task=task)
    folder.write()
    row = only(folder, "FROM chosen")
    assert (row["random_sets"], row["random_sets_as_good"], row["random_sets_p"]) == (
        2, 1, pytest.approx(2 / 3))
    assert (row["random_searches"], row["random_searches_as_good"], row["random_searches_p"]) == (
        3, 1, 0.5)
    assert row["warnings"].endswith("some random sets of its layer and size are as good; "
                                    "some choices of random searches are as good")


def test_a_choice_for_one_task_is_compared_on_that_task(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    for task, marks in (("t", "11"), ("u", "00")):
        folder.intervention(f"a{task}", "ig", "chosen", proxy=task, only_task=task)
        folder.intervention(f"r{task}", "random_search", "control", proxy=task, only_task=task,
                            layer=0, seed=0)
        folder.answers(f"a{task}", marks, task=task)
        folder.answers(f"r{task}", "10", task=task)
        folder.answers(f"a{task}", "01", task={"t": "u", "u": "t"}[task])  # transfer
    folder.write()
    found = rows(folder, "SELECT only_task, random_searches, random_searches_as_good FROM chosen "
                         "ORDER BY only_task")
    assert [tuple(row.values()) for row in found] == [("t", 1, 0), ("u", 1, 1)]
