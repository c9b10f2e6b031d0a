"""Intervals and tests, from sums over queries (formulas.md §7).

The unit of independence is the query: the answers to one text in one task, at whatever numbers of
shots and with whatever seeds, are one *cluster*. What an interval needs of the clusters of a task
are a few sums (:func:`share_sums`, :func:`pair_sums`); a table of sums has one line per task, and
``rows`` says to which result each line belongs. A result is the plain mean over its tasks.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

#: Share of data sets whose interval holds the truth.
LEVEL = 0.95
#: Sums of signed differences, at most, of which all are looked at; of more, some are drawn.
_SUMS = 1 << 17
_DRAWS = 9999
#: Sums as near as this, in units of the largest difference, are equal but for rounding.
_TIE = 1e-7
#: Queries in which every answer would be of the rarer kind, added to those seen.
_UNSEEN = 0.5


def wilson(share: ArrayLike, n: ArrayLike, level: ArrayLike = LEVEL) -> tuple[Array, Array]:
    """Wilson interval of a share of ``n`` answers; ``n`` need not be whole (formulas.md §7.1).

    Returns:
        (low, high), each of the arguments' common shape; nan where n is 0.
    """
    from scipy.special import ndtri

    p, size = np.asarray(share, float), np.asarray(n, float)
    z2 = np.square(ndtri((1 + np.asarray(level, float)) / 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = p + z2 / (2 * size)
        half = np.sqrt(z2 * (p * (1 - p) / size + z2 / (4 * size * size)))
        scale = 1 + z2 / size
        # Exact arithmetic gives 0 and 1; rounding must leave neither [0, 1] nor the share outside.
        low = np.where(p <= 0, 0.0, np.minimum((centre - half) / scale, p))
        high = np.where(p >= 1, 1.0, np.maximum((centre + half) / scale, p))
    missing = ~(size > 0)
    return np.where(missing, np.nan, low), np.where(missing, np.nan, high)


def share_sums(n: ArrayLike, x: ArrayLike) -> Array:
    """What an interval of a share needs of one task's clusters.

    Args:
        n: answers of each cluster, (k,).
        x: those of them that count, such as right ones, (k,).

    Returns:
        k and the sums of n, n², x, x² and nx, (6,).
    """
    size, count = np.asarray(n, float), np.asarray(x, float)
    return np.array([len(size), size.sum(), size @ size, count.sum(), count @ count, size @ count])


def pair_sums(n: ArrayLike, gained: ArrayLike, lost: ArrayLike) -> Array:
    """What an interval of a paired difference needs of one task's clusters.

    Args:
        n: pairs of each cluster, (k,).
        gained: pairs that count for the first alone, (k,).
        lost: pairs that count for the second alone, (k,).

    Returns:
        k and the sums of n, n², gained, its square, n times it, the same three of lost, and of
        gained times lost, (10,).
    """
    size, plus, minus = (np.asarray(values, float) for values in (n, gained, lost))
    return np.array([len(size), size.sum(), size @ size,
                     plus.sum(), plus @ plus, size @ plus,
                     minus.sum(), minus @ minus, size @ minus, plus @ minus])


def share_intervals(sums: ArrayLike, rows: ArrayLike, level: ArrayLike = LEVEL
                    ) -> tuple[Array, Array]:
    """Intervals of shares that are means over tasks (formulas.md §7.1, §5.2).

    Args:
        sums: :func:`share_sums` of each task, (lines, 6).
        rows: result that each line belongs to, (lines,), from 0 on without a gap.
        level: nominal coverage.

    Returns:
        (low, high), each (results,).
    """
    table, tasks = np.asarray(sums, float), _Tasks(rows)
    share, size = _effective(tasks, *table.T)
    return wilson(share, size, level)


def difference_intervals(sums: ArrayLike, rows: ArrayLike, level: ArrayLike = LEVEL
                         ) -> tuple[Array, Array]:
    """Intervals of paired differences that are means over tasks (formulas.md §7.3).

    Args:
        sums: :func:`pair_sums` of each task, (lines, 10).
        rows: result that each line belongs to, (lines,), from 0 on without a gap.
        level: nominal coverage.

    Returns:
        (low, high), each (results,).
    """
    table, tasks = np.asarray(sums, float), _Tasks(rows)
    k, n, nn, g, gg, ng, m, mm, nm, gm = table.T
    gained, gained_size = _effective(tasks, k, n, nn, g, gg, ng)
    lost, lost_size = _effective(tasks, k, n, nn, m, mm, nm)
    gained_low, gained_high = wilson(gained, gained_size, level)
    lost_low, lost_high = wilson(lost, lost_size, level)
    scale = tasks.weights**2 * _ratio(k, k - 1) / n**2
    p, q = g / n, m / n
    covariance = tasks.sum(scale * (gm - p * nm - q * ng + p * q * nn))
    spread = np.sqrt(tasks.sum(scale * (gg - 2 * p * ng + p * p * nn))
                     * tasks.sum(scale * (mm - 2 * q * nm + q * q * nn)))
    r = np.clip(_ratio(covariance, spread), -1, 1)
    low = _added(gained - gained_low, lost_high - lost, r)
    high = _added(gained_high - gained, lost - lost_low, r)
    return gained - lost - low, gained - lost + high


def drawn_interval(value: ArrayLike, interval: tuple[Array, Array], sd: ArrayLike,
                   draws: ArrayLike, level: ArrayLike = LEVEL) -> tuple[Array, Array]:
    """An interval over queries, widened for sets that were drawn at random (formulas.md §7.4).

    Args:
        value: mean over the sets, (results,).
        interval: of that mean, over queries, the sets taken as given.
        sd: standard deviation over the sets (draws - 1), (results,); nan for one set.
        draws: sets, (results,).
        level: nominal coverage.

    Returns:
        (low, high), each (results,); nan for one set.
    """
    centre = np.asarray(value, float)
    sets = _t_half(sd, draws, level)
    low, high = (np.hypot(end - centre, sets) for end in interval)
    return centre - low, centre + high


def mean_interval(value: ArrayLike, sd: ArrayLike, n: ArrayLike, level: ArrayLike = LEVEL
                  ) -> tuple[Array, Array]:
    """Student's t interval of a mean of ``n`` values with standard deviation ``sd`` (n - 1).

    Returns:
        (low, high), each of the arguments' common shape; nan for fewer than two values.
    """
    centre, half = np.asarray(value, float), _t_half(sd, n, level)
    return centre - half, centre + half


def drawn_p(sums: ArrayLike, rows: ArrayLike, sd: ArrayLike, draws: ArrayLike) -> Array:
    """Two-sided p-values of differences from sets drawn at random (formulas.md §7.4).

    That is 1 minus the highest level at which the interval of :func:`drawn_interval` is without 0.
    Arguments as in :func:`difference_intervals` and :func:`drawn_interval`; nan for one set.
    """
    table, tasks = np.asarray(sums, float), _Tasks(rows)
    value = tasks.sum(tasks.weights * (table[:, 3] - table[:, 6]) / table[:, 1])
    low, high = np.full(len(value), math.log(1e-9)), np.zeros(len(value))
    for _ in range(40):
        p = (low + high) / 2
        level = -np.expm1(p)
        ends = drawn_interval(value, difference_intervals(table, rows, level), sd, draws, level)
        without = (ends[0] > 0) | (ends[1] < 0)
        low, high = np.where(without, low, p), np.where(without, p, high)
    return np.where(np.asarray(draws) > 1, np.exp(high), np.nan)


def sign_flip_p(values: ArrayLike, counts: ArrayLike, weights: ArrayLike = 1.0, seed: int = 0
                ) -> float:
    """Two-sided mid-p value of a weighted sum of paired differences against 0 (formulas.md §7.5).

    Under the hypothesis the difference of each query is as likely as its opposite. All ways to
    give signs are counted, or, where the sum has too many values, 9,999 are drawn.

    Args:
        values: differences, summed over the answers of a query, (d,).
        counts: how many queries have each of them, (d,).
        weights: of each value in the statistic, such as 1 / answers of its task, (d,).
        seed: seed of the draws.

    Returns:
        Probability of a sum further from 0, and half of that of one as far. With a difference in
        one query at most there is only one such distance, and p is 1.
    """
    value = np.asarray(values, float) * np.asarray(weights, float)
    number = np.asarray(counts, np.int64)
    changed = (value != 0) & (number > 0)
    value, number = value[changed], number[changed]
    if number.sum() < 2:
        return 1.0
    value = value / np.abs(value).max()
    observed = abs(float(value @ number))
    sizes, place = np.unique(np.round(np.abs(value), 10), return_inverse=True)
    items = np.bincount(place, number).astype(np.int64)
    sums, chances = _signed_sums(sizes, items) or _drawn_sums(sizes, items, observed, seed)
    further = np.abs(sums) - observed
    tie = np.abs(further) < _TIE
    return float(min(1.0, chances[(further > 0) & ~tie].sum() + chances[tie].sum() / 2))


def _signed_sums(sizes: Array, items: NDArray[np.int64]) -> tuple[Array, Array] | None:
    """Values of the sum of ±size over all items, and their chances; ``None`` if there are many."""
    from scipy.special import gammaln

    sums: Array = np.zeros(1)
    chances: Array = np.ones(1)
    for size, number in zip(sizes, items, strict=True):
        if len(sums) * (number + 1) > _SUMS:
            return None
        up = np.arange(number + 1)
        binomial = np.exp(gammaln(number + 1) - gammaln(up + 1) - gammaln(number - up + 1)
                          - number * math.log(2))
        found = np.add.outer(sums, size * (2 * up - number)).ravel()
        sums, place = np.unique(np.round(found, 10), return_inverse=True)
        chances = np.bincount(
            place, np.multiply.outer(chances, binomial).ravel()).astype(np.float64)
    return sums, chances


def _drawn_sums(sizes: Array, items: NDArray[np.int64], observed: float, seed: int
                ) -> tuple[Array, Array]:
    """Draws of the sum of ±size over all items, of which what was observed is one."""
    rng = np.random.default_rng(seed)
    sums = np.zeros(_DRAWS)
    for size, number in zip(sizes, items, strict=True):
        sums += size * (2.0 * rng.binomial(number, 0.5, size=_DRAWS) - number)
    return np.append(sums, observed), np.full(_DRAWS + 1, 1 / (_DRAWS + 1))


def _added(one: Array, other: Array, correlation: Array) -> Array:
    """Square-and-add: the half-length of a difference of two correlated quantities."""
    found: Array = np.sqrt(np.maximum(one**2 + other**2 - 2 * correlation * one * other, 0))
    return found


class _Tasks:
    """Lines that belong to results: the mean over tasks is the sum of weight times line."""

    def __init__(self, rows: ArrayLike) -> None:
        self.rows = np.asarray(rows, np.int64)
        self.number = np.bincount(self.rows)
        self.weights = 1.0 / self.number[self.rows]

    def sum(self, lines: Array) -> Array:
        return cast("Array", np.bincount(self.rows, lines, len(self.number)))


def _effective(tasks: _Tasks, k: Array, n: Array, nn: Array, x: Array, xx: Array, nx: Array
               ) -> tuple[Array, Array]:
    """The mean over tasks of a share, and how many independent answers are as good as these.

    The variance of a task's share is that of a ratio of sums over clusters. Its effective size
    lies between what it is if the answers of a cluster are all alike (n²/nn) and n. A task whose
    answers are all alike has nothing to estimate it from, and counts its clusters. For the sum
    over tasks each share is moved by one answer's weight towards the mean, so that a task
    without one wrong answer is not taken as known.
    """
    share, alike = x / n, n * n / nn
    within = share * (1 - share)
    variance = _ratio(k, k - 1) * (xx - 2 * share * nx + share * share * nn) / n**2
    size = np.clip(_ratio(within, variance, np.where(within > 0, n, alike)), alike, n)
    size = np.where(k > 1, size, alike)
    inflation, few = n / size, np.minimum(x, n - x)
    seen = few / inflation
    size = n / ((seen * inflation + _UNSEEN * n / alike) / (seen + _UNSEEN))
    mean = tasks.sum(tasks.weights * share)

    def pooled(sizes: Array) -> Array:
        moved = (sizes * share + mean[tasks.rows]) / (sizes + 1)
        total = tasks.sum(tasks.weights**2 * moved * (1 - moved) / sizes)
        return _ratio(mean * (1 - mean), total, 1 / tasks.sum(tasks.weights**2 / sizes))

    return mean, pooled(size)


def _ratio(above: Array, below: Array, otherwise: ArrayLike = 0.0) -> Array:
    """``above / below``, and ``otherwise`` where ``below`` is 0 (or rounding about it)."""
    safe = below > 1e-15
    return np.where(safe, above / np.where(safe, below, 1.0), otherwise)


def _t_half(sd: ArrayLike, n: ArrayLike, level: ArrayLike) -> Array:
    """Half the length of Student's t interval; nan for fewer than two values."""
    from scipy.special import stdtrit

    number = np.asarray(n, float)
    several = number > 1
    quantile = stdtrit(np.where(several, number - 1, 1), (1 + np.asarray(level, float)) / 2)
    spread = np.asarray(sd, float) / np.sqrt(np.where(several, number, 1))
    return np.where(several, quantile * spread, np.nan)
