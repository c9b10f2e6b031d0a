"""The statistics against scipy's own, and against cases worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import (
    binomtest,
    bootstrap,
    false_discovery_control,
    permutation_test,
)

from prunelib.scoring.statistics import (
    benjamini_hochberg,
    mcnemar_exact,
    paired_bootstrap,
    sign_flip_p,
    wilson,
)

SAMPLES = [
    ([-1, 0, 1], [5, 20, 15]),
    ([0, 0.25, 0.5, 1], [30, 6, 3, 1]),
    ([-0.5, 0.5], [12, 10]),
]


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 40), (1, 3), (17, 40), (40, 40), (999, 1000)])
def test_wilson(k: int, n: int) -> None:
    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_wilson_stays_in_the_unit_interval_around_the_share(k: int, n: int) -> None:
    k = min(k, n)
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1


def test_wilson_at_the_edges() -> None:
    assert all(math.isnan(end) for end in wilson(0, 0))
    with pytest.raises(ValueError, match="3 successes out of 2"):
        wilson(3, 2)


@pytest.mark.parametrize(("b", "c"), [(0, 1), (3, 3), (1, 9), (25, 40)])
def test_mcnemar(b: int, c: int) -> None:
    assert mcnemar_exact(b, c) == pytest.approx(binomtest(min(b, c), b + c).pvalue)
    assert mcnemar_exact(b, c) == mcnemar_exact(c, b)


def test_mcnemar_without_discordant_pairs() -> None:
    assert mcnemar_exact(0, 0) == 1


@pytest.mark.parametrize(("values", "counts"), SAMPLES)
def test_bootstrap_is_that_of_the_items(values: list[float], counts: list[int]) -> None:
    items = np.repeat(values, counts)
    expected = bootstrap(
        (items,), np.mean, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    found = paired_bootstrap(values, counts, resamples=20_000)
    step = np.diff(values).min() / len(items)  # a mean can take no value in between
    assert found == pytest.approx(tuple(expected), abs=1.001 * step)


def test_bootstrap_of_strata_is_the_mean_of_their_means() -> None:
    values, counts, strata = [0.0, 1.0, 0.0, 1.0], [90, 10, 1, 3], ["t", "t", "u", "u"]
    found = paired_bootstrap(values, counts, resamples=20_000, strata=strata)
    rng = np.random.default_rng(5)
    draws = (rng.binomial(100, 0.1, 20_000) / 100 + rng.binomial(4, 0.75, 20_000) / 4) / 2
    assert found == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.02)


@pytest.mark.parametrize(("values", "counts"), SAMPLES)
def test_sign_flip_is_the_permutation_test_of_the_items(
    values: list[float], counts: list[int]
) -> None:
    items = np.repeat(values, counts).astype(float)

    def mean(x: Any, axis: int) -> Any:
        return np.mean(x, axis=axis)

    expected = permutation_test(
        (items,), mean, permutation_type="samples", n_resamples=20_000, rng=1
    ).pvalue
    assert sign_flip_p(values, counts) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("b", "c"), [(2, 8), (6, 6), (0, 5)])
def test_sign_flip_of_unit_differences_is_mcnemar(b: int, c: int) -> None:
    found = sign_flip_p([-1, 0, 1], [b, 7, c], resamples=40_000)
    assert found == pytest.approx(mcnemar_exact(b, c), abs=0.01)


def test_sign_flip_weighs_strata_alike() -> None:
    # One item of a stratum of one outweighs ten of a stratum of a hundred.
    p = sign_flip_p([1.0, 0.0, -1.0], [90, 10, 1], strata=["t", "t", "u"])
    assert p > 0.5
    assert sign_flip_p([1.0, 0.0], [90, 10]) == 1 / 10_000


@given(st.lists(st.tuples(st.integers(-20, 20), st.integers(0, 30)), max_size=8))
def test_order_and_empty_values_do_not_matter(pairs: list[tuple[int, int]]) -> None:
    values, counts = [v / 20 for v, _ in pairs], [c for _, c in pairs]
    p = sign_flip_p(values, counts, resamples=200)
    assert 1 / 201 <= p <= 1
    assert sign_flip_p(values[::-1], counts[::-1], resamples=200) == p
    low, high = paired_bootstrap(values, counts, resamples=100)
    present = [v for v, c in zip(values, counts, strict=True) if c]
    if present:
        assert min(present) - 1e-9 <= low <= high <= max(present) + 1e-9
    else:
        assert math.isnan(low)
        assert math.isnan(high)
        assert p == 1


def test_same_seed_same_numbers() -> None:
    values, counts = [0, 0.1, 0.7, 0.73], [5, 6, 7, 8]
    assert paired_bootstrap(values, counts) == paired_bootstrap(values, counts)
    assert paired_bootstrap(values, counts, seed=1) != paired_bootstrap(values, counts)


def test_benjamini_hochberg() -> None:
    p = [0.01, 0.8, 0.03, 0.03]
    assert benjamini_hochberg(p) == pytest.approx(false_discovery_control(p))
    assert benjamini_hochberg(p) == pytest.approx([0.04, 0.8, 0.04, 0.04])
    assert benjamini_hochberg([]) == []
