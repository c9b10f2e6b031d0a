"""Intervals and tests, on distinct values with multiplicities.

A difference of correctness takes few distinct values (-1, 0, 1, or multiples of 1/shots), so
resampling n items is a multinomial draw over the distinct values, and flipping n signs is one
binomial draw per distinct value: the same distributions, at a cost that does not depend on n.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Z95 = NormalDist().inv_cdf(0.975)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson 95% interval of a proportion; (nan, nan) without observations.

    Raises ``ValueError`` unless 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes out of {n}")
    if n == 0:
        return math.nan, math.nan
    share, z2 = successes / n, _Z95 * _Z95
    centre = share + z2 / (2 * n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    scale = 1 + z2 / n
    # The ends are exactly 0 and 1 in exact arithmetic; rounding must not leave [0, 1].
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return low, high


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided exact McNemar p-value of ``b`` against ``c`` discordant pairs; 1 without any."""
    if b + c == 0:
        return 1.0
    from scipy.stats import binomtest  # costs half a second to import

    return float(binomtest(b, b + c, 0.5).pvalue)


def paired_bootstrap(
    values: Sequence[float],
    counts: Sequence[int],
    resamples: int = 2000,
    seed: int = 0,
    *,
    strata: Sequence[Hashable] | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap 95% interval of a mean.

    Args:
        values: distinct values, (d,).
        counts: how many items have each value, (d,).
        resamples: number of bootstrap resamples.
        seed: seed of the draws.
        strata: group of each value, (d,). Items are then resampled within their group, and the
            statistic is the plain mean of the groups' means, whatever their sizes.

    Returns:
        (low, high); (nan, nan) without items.
    """
    groups = _groups(values, counts, strata)
    if not groups:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    means = np.zeros(resamples)
    for value, count in groups:
        n = int(count.sum())
        means += rng.multinomial(n, count / n, size=resamples) @ value / n
    low, high = np.quantile(means / len(groups), [0.025, 0.975])
    return float(low), float(high)


def sign_flip_p(
    values: Sequence[float],
    counts: Sequence[int],
    resamples: int = 9999,
    seed: int = 0,
    *,
    strata: Sequence[Hashable] | None = None,
) -> float:
    """Two-sided permutation p-value of a mean of paired differences against zero.

    Under the hypothesis each difference is as likely as its opposite. Arguments as in
    :func:`paired_bootstrap`. The observed signs count as one of the permutations, so p is never
    below 1 / (resamples + 1); it is 1 without items.
    """
    groups = _groups(values, counts, strata)
    observed = 0.0
    sizes: dict[float, int] = defaultdict(int)  # weight of an item in the mean → items
    for value, count in groups:
        weight = value / count.sum()
        observed += float(weight @ count)
        for size, items in zip(np.abs(weight).tolist(), count.tolist(), strict=True):
            sizes[size] += items
    sizes.pop(0.0, None)  # a zero has no sign to flip
    rng = np.random.default_rng(seed)
    flipped = np.zeros(resamples)
    for size in sorted(sizes):
        items = sizes[size]
        flipped += size * (2.0 * rng.binomial(items, 0.5, size=resamples) - items)
    # Sums in another order differ by rounding: a tie must count as a tie.
    extreme = np.abs(flipped) >= abs(observed) - 1e-9
    return (1 + int(extreme.sum())) / (resamples + 1)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (q-values) of a family of tests, in the order given."""
    if not len(p_values):
        return []
    from scipy.stats import false_discovery_control

    return [float(q) for q in false_discovery_control(np.asarray(p_values, float))]


def _groups(
    values: Sequence[float], counts: Sequence[int], strata: Sequence[Hashable] | None
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """(values, counts) of each stratum that has items, in order of first appearance."""
    labels = strata if strata is not None else [None] * len(values)
    members: dict[Hashable, list[tuple[float, int]]] = {}
    for label, value, count in zip(labels, values, counts, strict=True):
        if count:
            members.setdefault(label, []).append((value, count))
    return [
        (np.array([v for v, _ in group], float), np.array([c for _, c in group], np.int64))
        for group in members.values()
    ]
