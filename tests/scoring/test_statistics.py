"""The statistics against scipy's own, and against cases worked out by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, ttest_1samp
from scipy.stats import t as student

from prunelib.scoring.statistics import (
    difference_intervals,
    drawn_interval,
    drawn_p,
    mean_interval,
    pair_sums,
    share_intervals,
    share_sums,
    sign_flip_p,
    wilson,
)


def score(share: float, n: float, level: float = 0.95) -> tuple[float, float]:
    low, high = wilson(share, n, level)
    return float(low), float(high)


def share_interval(*tasks: tuple[Any, Any]) -> tuple[float, float]:
    low, high = share_intervals([share_sums(*task) for task in tasks], np.zeros(len(tasks), int))
    return float(low[0]), float(high[0])


def difference_interval(*tasks: tuple[Any, Any, Any]) -> tuple[float, float]:
    low, high = difference_intervals([pair_sums(*t) for t in tasks], np.zeros(len(tasks), int))
    return float(low[0]), float(high[0])


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 40), (1, 3), (17, 40), (40, 40), (999, 1000)])
def test_wilson(k: int, n: int) -> None:
    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert score(k / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
    expected = binomtest(k, n).proportion_ci(0.9, method="wilson")
    assert score(k / n, n, 0.9) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.integers(0, 10_000), st.floats(0.5, 10_000))
def test_wilson_stays_in_the_unit_interval_around_the_share(k: int, n: float) -> None:
    share = min(k / n, 1)
    low, high = score(share, n)
    assert 0 <= low <= share <= high <= 1


def test_answers_to_different_queries_are_independent() -> None:
    right = np.array([1, 0, 0, 1, 1, 0, 1, 0])
    assert share_interval((np.ones(8), right)) == pytest.approx(score(0.5, 8))


def test_equal_answers_to_a_query_count_once() -> None:
    n = np.full(40, 6)
    right = 6 * np.repeat([1, 0], [30, 10])
    assert share_interval((n, right)) == pytest.approx(score(0.75, 40))
    assert share_interval((n, 0 * right)) == pytest.approx(score(0, 40))


def test_the_effective_size_is_that_of_the_clusters_residuals() -> None:
    rng = np.random.default_rng(3)
    n = rng.integers(1, 9, 400)
    x = rng.binomial(n, rng.beta(2, 2, 400))
    share = x.sum() / n.sum()
    residuals = x - share * n
    variance = 400 / 399 * (residuals**2).sum() / n.sum() ** 2
    size = share * (1 - share) / variance
    assert 400 < size < n.sum()
    # Half a query that no one saw counts beside hundreds: 1%.
    assert np.subtract(*share_interval((n, x))) == pytest.approx(
        np.subtract(*score(share, size)), rel=0.01)


def test_a_mean_over_tasks_has_the_variance_of_the_mean() -> None:
    ones = np.ones(200)
    tasks = [(ones, np.arange(200) < right) for right in (100, 180)]
    variance = (0.5 * 0.5 + 0.9 * 0.1) / 200 / 4
    size = 0.7 * 0.3 / variance
    assert share_interval(*tasks) == pytest.approx(score(0.7, size), abs=1e-3)
    assert share_interval(*[(ones, 0 * ones)] * 3) == pytest.approx(score(0, 600))


def test_a_difference_is_gained_minus_lost() -> None:
    one = np.ones(50)
    gained, lost = np.arange(50) < 9, np.arange(50) >= 48
    low, high = difference_interval((one, gained, lost))
    g, m = score(9 / 50, 50), score(2 / 50, 50)
    r = np.corrcoef(gained, lost)[0, 1]
    assert low == pytest.approx(0.14 - np.sqrt(
        (0.18 - g[0]) ** 2 + (m[1] - 0.04) ** 2 - 2 * r * (0.18 - g[0]) * (m[1] - 0.04)))
    assert high == pytest.approx(0.14 + np.sqrt(
        (g[1] - 0.18) ** 2 + (0.04 - m[0]) ** 2 - 2 * r * (g[1] - 0.18) * (0.04 - m[0])))
    assert difference_interval((one, lost, gained)) == pytest.approx((-high, -low))


def test_nothing_changed_is_no_proof_that_nothing_changes() -> None:
    one = np.ones(50)
    low, high = difference_interval((one, 0 * one, 0 * one))
    assert (low, high) == pytest.approx((-score(0, 50)[1], score(0, 50)[1]))


def test_one_query_is_one_observation() -> None:
    assert share_interval(([1], [1])) == pytest.approx(score(1, 1))
    assert share_interval(([50], [50])) == pytest.approx(score(1, 1))
    assert share_interval(([50], [20])) == pytest.approx(score(0.4, 1))


def test_results_side_by_side_do_not_mix() -> None:
    tasks = [([1] * 9, [1] * 4 + [0] * 5), ([2] * 5, [2, 1, 0, 0, 1]), ([1] * 3, [1, 1, 1])]
    sums = [share_sums(*task) for task in tasks]
    low, high = share_intervals(sums, [1, 0, 1])
    assert (low[0], high[0]) == pytest.approx(share_interval(tasks[1]))
    assert (low[1], high[1]) == pytest.approx(share_interval(tasks[0], tasks[2]))


def test_random_sets_widen_an_interval() -> None:
    sets = np.array([0.0, 0.01, 0.03, -0.02, 0.01])
    sd = sets.std(ddof=1)
    low, high = drawn_interval([0.02], (np.array([-0.01]), np.array([0.04])), [sd], [5])
    half = student.ppf(0.975, 4) * sd / np.sqrt(5)
    assert low[0] == pytest.approx(0.02 - np.hypot(0.03, half))
    assert high[0] == pytest.approx(0.02 + np.hypot(0.02, half))
    one = drawn_interval([0.02], (np.array([-0.01]), np.array([0.04])), [np.nan], [1])
    assert np.isnan(one).all()


def test_p_against_random_sets_is_where_the_interval_touches_zero() -> None:
    sums = [pair_sums(np.ones(60), np.arange(60) < 9, np.arange(60) > 57)]
    (p,) = drawn_p(sums, [0], [0.02], [5])
    assert 0.001 < p < 0.2
    for level, inside in ((1 - p - 1e-4, False), (1 - p + 1e-4, True)):
        low, high = drawn_interval([7 / 60], difference_intervals(sums, [0], level), [0.02], [5],
                                   level)
        assert (low[0] <= 0 <= high[0]) == inside
    assert np.isnan(drawn_p(sums, [0], [np.nan], [1]))[0]
    assert drawn_p([pair_sums(np.ones(9), np.zeros(9), np.zeros(9))], [0], [0.0], [5])[0] == 1


def test_mean_interval_is_students() -> None:
    values = np.array([0.1, 0.3, -0.2, 0.4])
    expected = ttest_1samp(values, 0).confidence_interval()
    assert mean_interval(values.mean(), values.std(ddof=1), 4) == pytest.approx(
        (expected.low, expected.high))
    assert np.isnan(mean_interval(0.1, np.nan, 1)).all()


@pytest.mark.parametrize(("b", "c"), [(2, 8), (6, 6), (0, 5), (1, 1), (0, 2), (90, 60)])
def test_sign_flip_of_unit_differences_is_mid_p_mcnemar(b: int, c: int) -> None:
    expected = binomtest(b, b + c).pvalue - binom.pmf(b, b + c, 0.5)
    if b == c:
        expected = 1 - binom.pmf(b, b + c, 0.5) / 2
    assert sign_flip_p([-1, 0, 1], [b, 7, c]) == pytest.approx(expected)
    assert sign_flip_p([1, -1], [b, c]) == pytest.approx(expected)


def test_one_changed_query_says_nothing() -> None:
    assert sign_flip_p([1, 0], [1, 10]) == 1
    assert sign_flip_p([9, 0], [1, 10]) == 1
    assert sign_flip_p([0], [10]) == sign_flip_p([], []) == 1


@given(st.lists(st.tuples(st.integers(-3, 3), st.sampled_from([1 / 7, 1 / 10, 0.25])),
                min_size=2, max_size=9))
def test_sign_flip_counts_all_ways_to_give_signs(items: list[tuple[int, float]]) -> None:
    values, weights = np.array(items).T
    terms = (values * weights)[values != 0]
    sums = np.abs([np.dot(signs, terms) for signs in
                   itertools.product((-1, 1), repeat=len(terms))])
    observed = abs(terms.sum())
    tie = np.abs(sums - observed) < 1e-9
    expected = 1 if len(terms) < 2 else ((sums > observed) & ~tie).mean() + tie.mean() / 2
    assert sign_flip_p(values, np.ones(len(items), int), weights) == pytest.approx(expected)


def test_drawn_signs_come_near_all_signs() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.1, 1, 200)  # no two alike, so that all sums are too many
    found = sign_flip_p(values, np.ones(200, int))
    # With so many terms the sum of signed terms is normal.
    expected = 2 * (1 - student.cdf(abs(values.sum()) / np.sqrt((values**2).sum()), 1e6))
    assert found == pytest.approx(expected, abs=0.015)
    assert found == sign_flip_p(values, np.ones(200, int)) != sign_flip_p(
        values, np.ones(200, int), seed=1)
    assert sign_flip_p(np.abs(values), np.ones(200, int)) == pytest.approx(0.5e-4)
