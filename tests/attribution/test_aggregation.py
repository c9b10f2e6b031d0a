"""Scores of components from scores of prompts: against scipy, and by simulation."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy import stats
from scipy.stats import mstats

from prunelib.attribution.aggregation import TRIM, aggregate, half_scores, overlap
from prunelib.search.selection import in_order

RNG = np.random.default_rng(1)
TOP = partial(in_order, rank="top")


def test_trimmed_means_and_their_errors_are_those_of_scipy() -> None:
    each = RNG.standard_t(2, (25, 5))
    queries = [str(i) for i in range(25)]
    found = aggregate(each, queries, "trimmed")
    np.testing.assert_allclose(found.scores, stats.trim_mean(each, TRIM))
    assert found.errors is not None
    np.testing.assert_allclose(found.errors, mstats.trimmed_stde(each, (TRIM, TRIM), axis=0))


def test_prompts_of_a_query_are_one_observation() -> None:
    each = RNG.normal(size=(12, 4))
    queries = [str(i) for i in range(12)]
    twice, asked = np.repeat(each, 2, 0), [q for q in queries for _ in range(2)]
    for how in ("mean", "trimmed"):
        once, doubled = aggregate(each, queries, how), aggregate(twice, asked, how)  # type: ignore[arg-type]
        np.testing.assert_allclose(doubled.scores, once.scores)
        assert once.errors is not None and doubled.errors is not None
        np.testing.assert_allclose(doubled.errors, once.errors)
        assert doubled.queries == once.queries == 12
    alone = aggregate(each[:1], queries[:1], "mean")
    assert alone.errors is None and alone.sampling_error is None and alone.queries == 1


@pytest.mark.parametrize("how", ["mean", "trimmed"])
def test_errors_cover_the_scores_that_all_prompts_would_give(how: str) -> None:
    """95% of intervals of plus or minus 1.96 standard errors, of symmetric scores, hold them."""
    held = []
    for _ in range(60):
        each = RNG.standard_t(5, (80, 50)) + 1.0
        found = aggregate(each, [str(i) for i in range(80)], how)  # type: ignore[arg-type]
        assert found.errors is not None
        held.append(np.abs(found.scores - 1.0) < 1.96 * found.errors)
    assert 0.93 < np.mean(held) < 0.965


def test_halves_share_no_query_and_take_all() -> None:
    each = RNG.normal(size=(10, 3))
    queries = [str(i // 2) for i in range(10)]  # 5 queries of 2 prompts
    for split in range(3):
        halves = half_scores(each, queries, "mean", split)
        assert halves is not None
        np.testing.assert_allclose((6 * halves[0] + 4 * halves[1]) / 10, each.mean(0))
    assert half_scores(each[:2], queries[:2], "mean") is None


def test_the_overlap_is_1_for_what_is_certain_and_small_for_noise() -> None:
    queries = [str(i) for i in range(40)]
    signal = np.arange(200.0)[::-1] + np.zeros((40, 1))
    assert overlap(signal, queries, "mean", TOP, [2, 20]) == 1
    noise = [overlap(RNG.normal(size=(40, 200)), queries, "mean", TOP, [20]) for _ in range(20)]
    assert np.mean([n for n in noise if n is not None]) == pytest.approx(20 / 200, abs=0.03)
    # Between the two: some components stand out.
    some = np.where(np.arange(200) < 10, 2.0, 0.0) + RNG.normal(size=(40, 200))
    assert overlap(some, queries, "mean", TOP, [10]) == pytest.approx(1, abs=0.1)
    assert overlap(some[:1], queries[:1], "mean", TOP, [10]) is None
