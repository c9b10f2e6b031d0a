"""Measures of how much accuracy depends on a condition, and what noise alone makes of them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from prunelib.scoring.conditions import Measure, answers_table, change_p, measured, spread

Array = Any


def test_measures_by_hand() -> None:
    assert measured("majority", np.array([[0.8, 0.7, 0.95]])) == pytest.approx((0.1 + 0.15) / 2)
    assert measured("majority", np.array([[0.5, 0.5, 0.5]])) == 0
    assert measured("order", np.array([[0.4, 0.4, 0.7]])) == pytest.approx(
        (2 * 0.1**2 / 3 + 0.2**2 / 3) ** 0.5)
    # Two series: the mean of either's measure.
    assert measured("order", np.array([[0.9, 0.5], [0.4, 0.4]])) == pytest.approx(0.1)


def test_a_query_has_to_be_asked_equally_often() -> None:
    right, asked = answers_table(["a", "b", "a", "b"], [0, 0, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0])
    assert right.tolist() == [[[1, 0]], [[0, 0]]] and asked.tolist() == [[1], [1]]
    with pytest.raises(ValueError, match="equally often"):
        answers_table(["a", "b", "a"], [0, 0, 0], [0, 0, 1], [1, 0, 0])


@pytest.mark.parametrize("kind", ["majority", "order"])
def test_floor_and_p_value_are_those_of_all_permutations(kind: Measure) -> None:
    rng = np.random.default_rng(3)
    right = rng.integers(0, 3, (4, 2, 3)).astype(float)
    asked = np.full((4, 2), 2.0)
    orders = list(itertools.permutations(range(3)))
    draws = np.array([
        measured(kind, np.sum([right[q][:, order] for q, order in enumerate(chosen)], 0) / 8)
        for chosen in itertools.product(orders, repeat=4)])
    found = spread(kind, right, asked, resamples=20_000)
    assert found.value == pytest.approx(float(measured(kind, right.sum(0) / 8)))
    assert found.floor == pytest.approx(draws.mean(), rel=0.02)
    assert found.p == pytest.approx((draws >= found.value - 1e-12).mean(), abs=0.015)


def test_p_value_of_a_change_is_that_of_all_swaps() -> None:
    rng = np.random.default_rng(4)
    before, after = (rng.integers(0, 2, (7, 1, 3)).astype(float) for _ in range(2))
    asked = np.ones((7, 1))
    gaps = []
    for swap in itertools.product((False, True), repeat=7):
        turned = np.array(swap)[:, None, None]
        one, other = np.where(turned, after, before), np.where(turned, before, after)
        gaps.append(measured("order", other.sum(0) / 7) - measured("order", one.sum(0) / 7))
    expected = (np.abs(gaps) >= abs(gaps[0]) - 1e-12).mean()
    assert change_p("order", before, after, asked, 20_000) == pytest.approx(expected, abs=0.015)
    assert change_p("order", before, before, asked) == 1


def answers(rng: np.random.Generator, queries: int, series: int, effects: Array) -> Array:
    """Two prompts of each query in each series; half of the queries answer both alike."""
    ease = rng.beta(1.4, 0.6, (queries, 1, 1))
    chances = np.clip(ease + effects, 0, 1) * np.ones((queries, series, len(effects)))
    alike = rng.random((queries, 1, len(effects))) < chances
    return np.where(rng.random((queries, 1, 1)) < 0.5, 2 * alike, rng.binomial(2, chances))


@pytest.mark.parametrize(("kind", "conditions"), [("majority", 3), ("order", 6)])
def test_noise_alone_is_found_out_as_often_as_it_should(kind: Measure, conditions: int) -> None:
    rng = np.random.default_rng(0)
    runs = [spread(kind, answers(rng, 60, 2, np.zeros(conditions)), np.full((60, 2), 2.0), 199, i)
            for i in range(800)]
    assert 0.03 <= np.mean([run.p <= 0.05 for run in runs]) <= 0.06
    assert 0.03 <= np.mean([run.low > 0 for run in runs]) <= 0.06
    values = np.array([run.value for run in runs])
    # The measure is far from 0 although nothing is there; its floor says how far.
    assert values.mean() > 5 * values.std() / len(values) ** 0.5
    assert np.mean([run.floor for run in runs]) == pytest.approx(values.mean(), rel=0.04)


@pytest.mark.parametrize("kind", ["majority", "order"])
def test_intervals_cover_what_is_there(kind: Measure) -> None:
    rng = np.random.default_rng(1)
    effects = np.array([0.0, -0.2, 0.0])
    many = answers(rng, 200_000, 1, effects)
    truth = float(measured(kind, many.mean(0) / 2))
    runs = [spread(kind, answers(rng, 80, 1, effects), np.full((80, 1), 2.0), 199, i)
            for i in range(400)]
    assert np.mean([run.low <= truth <= run.high for run in runs]) >= 0.94
    assert np.mean([run.p <= 0.05 for run in runs]) > 0.5


def test_a_change_that_is_none_is_found_as_often_as_it_should() -> None:
    rng = np.random.default_rng(2)
    found = []
    for i in range(1000):
        both = answers(rng, 80, 1, np.repeat([0.0, -0.15, 0.0], 2))
        swapped = both[:, :, [0, 2, 4]], both[:, :, [1, 3, 5]]
        found.append(change_p("majority", *swapped, np.full((80, 1), 2.0), 399, i))
    assert 0.03 <= np.mean(np.array(found) <= 0.05) <= 0.06
