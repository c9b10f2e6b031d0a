"""Rankings of heads: hand-made orders, scipy, and simulated intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from prunelib.errors import UnitError, UserError
from prunelib.heads.ranking import aggregate, order, overlap, rank_correlation, removed


def test_the_least_important_come_first_and_ties_keep_their_place() -> None:
    assert order(np.array([[3.0, 1.0, 2.0], [1.0, 0.0, 3.0]])) == [
        (1, 1), (0, 1), (1, 0), (0, 2), (0, 0), (1, 2)]
    assert order(np.array([0.5, 0.1, 0.5])) == [(1, 0), (0, 0), (2, 0)]


def test_a_score_that_is_no_number_has_no_rank() -> None:
    with pytest.raises(UnitError):
        order(np.array([[1.0, math.nan]]))


@pytest.mark.parametrize(("count", "fraction", "expected"), [
    (4608, 0.7, 3225), (64, 0.1, 6), (64, 0.2, 12), (100, 0.29, 29), (10, 0, 0), (10, 1, 10),
])  # fmt: skip
def test_as_many_are_removed_as_in_the_paper(count: int, fraction: float, expected: int) -> None:
    places = [(0, i) for i in range(count)]
    assert removed(places, fraction) == places[:expected]


def test_removal_of_more_than_all_is_refused() -> None:
    for fraction in (-0.1, 1.5, 70):
        with pytest.raises(UserError, match="between 0 and 1"):
            removed([(0, 0)], fraction)


def test_argsort_lists_are_not_ranks() -> None:
    """A list of components in order of importance is the inverse of their ranks.

    a is in order, so its ranks and its list are both 0 1 2 3 4. b's ranks are 1 2 3 0 4: squared
    differences 1 1 1 9 0, so 1 - 6·12/(5·24) = 0.4. In order of importance b's components are
    3 0 1 2 4: squared differences 9 1 1 1 0, the same sum: against the order itself both agree.
    With c of ranks 2 0 1 4 3, against b: 1 4 4 16 1, so -0.3; the lists are 1 2 0 4 3 and
    3 0 1 2 4: 4 4 1 4 1, so 0.3.
    """
    a, b, c = (np.array([ranks], float) for ranks in
               ([0, 1, 2, 3, 4], [1, 2, 3, 0, 4], [2, 0, 1, 4, 3]))
    assert rank_correlation(a, b).value == pytest.approx(0.4)
    assert rank_correlation(a, b, "argsort").value == pytest.approx(0.4)
    assert rank_correlation(c, b).value == pytest.approx(-0.3)
    assert rank_correlation(c, b, "argsort").value == pytest.approx(0.3)
    assert math.isnan(rank_correlation(c, b, "argsort").low)


def test_it_is_scipys_correlation_also_with_ties() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 6, (4, 8)).astype(float)
    b = a + rng.normal(0, 3, (4, 8)).round()
    ours, theirs = rank_correlation(a, b), stats.spearmanr(a.ravel(), b.ravel())
    by_ranks = np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1]
    assert ours.value == pytest.approx(by_ranks, abs=1e-12)
    assert (ours.value, ours.p) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert ours.low < ours.value < ours.high
    lists = rank_correlation(a, b, "argsort")
    assert lists.value == pytest.approx(stats.pearsonr(
        a.argsort(axis=None, kind="stable"), b.argsort(axis=None, kind="stable")).statistic)


def test_the_interval_covers_the_true_correlation() -> None:
    """Normal pairs of correlation r have Spearman's correlation 6/π · asin(r/2)."""
    rng = np.random.default_rng(1)
    for r in (0.0, 0.4, 0.9):
        truth = 6 / math.pi * math.asin(r / 2)
        inside = 0
        for _ in range(600):
            a, noise = rng.normal(size=(2, 1, 40))
            found = rank_correlation(a, r * a + math.sqrt(1 - r * r) * noise)
            inside += found.low <= truth <= found.high
        assert 0.92 < inside / 600 < 0.98


def test_an_order_with_itself_and_no_order_at_all() -> None:
    a = np.arange(12.0).reshape(3, 4)
    assert rank_correlation(a, a) == pytest.approx(rank_correlation(a, a * a))
    assert (rank_correlation(a, a).value, rank_correlation(a, -a).low) == (1.0, -1.0)
    assert math.isnan(rank_correlation(a, np.ones((3, 4))).value)
    few = rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0]))
    assert few.value == pytest.approx(0.5)
    assert math.isnan(few.low)


def test_overlap_counts_the_top() -> None:
    a = np.arange(10.0).reshape(2, 5)
    b = a.copy()
    b[0, 0], b[1, 4] = 9, 0  # the top three of b: 0, 7 and 8
    assert overlap(a, b) == pytest.approx(2 / 3)
    assert overlap(a, a) == 1
    assert overlap(a, -a) == 0
    assert overlap(a, -a, 1.0) == 1
    assert math.isnan(overlap(a, b, 0.05))


def test_scores_of_two_models_are_not_compared() -> None:
    for compare in (rank_correlation, overlap):
        with pytest.raises(UserError, match="of one model"):
            compare(np.ones((2, 3)), np.ones((3, 2)))


def test_every_task_counts_alike() -> None:
    assert aggregate([np.array([[1.0, 2.0]]), np.array([[3.0, 8.0]])]).tolist() == [[2.0, 5.0]]
