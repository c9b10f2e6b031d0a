"""The statistics of formulas.md §7 written a second time, answer by answer, for tests.

Nothing here is shared with the package: intervals are found as roots of their score equation,
variances from the residuals of clusters, sign-flip tests by counting all sums as fractions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import norm
from scipy.stats import t as student

Interval = tuple[float, float]
#: Of one task: the answers of each query, 1 for what counts.
Clusters = Sequence[Sequence[int]]


def score_interval(share: float, n: float, level: float = 0.95) -> Interval:
    """All shares from which the one found is less than z standard errors away."""
    z2 = norm.ppf((1 + level) / 2) ** 2
    roots = np.roots([n + z2, -(2 * n * share + z2), n * share**2]).real
    return 0.0 if share == 0 else float(min(roots)), 1.0 if share == 1 else float(max(roots))


def _mean_and_size(tasks: Sequence[Clusters]) -> tuple[float, float]:
    """The mean over tasks of a share, and its effective number of answers."""
    shares, sizes, least = [], [], []
    for clusters in tasks:
        n = np.array([len(answers) for answers in clusters], float)
        x = np.array([sum(answers) for answers in clusters], float)
        k, share = len(n), x.sum() / n.sum()
        alike = n.sum() ** 2 / (n**2).sum()
        if k > 1 and 0 < share < 1:
            residuals = x - share * n
            variance = k / (k - 1) * (residuals**2).sum() / n.sum() ** 2
            size = n.sum() if variance < 1e-15 else share * (1 - share) / variance
            size = min(max(size, alike), n.sum())
        else:
            size = alike
        inflation = n.sum() / size
        seen = min(x.sum(), n.sum() - x.sum()) / inflation
        sizes.append(n.sum() * (seen + 0.5) / (seen * inflation + 0.5 * n.sum() / alike))
        shares.append(share)
        least.append(alike)
    mean = float(np.mean(shares))
    moved = [(s * p + mean) / (s + 1) for s, p in zip(sizes, shares, strict=True)]
    variance = sum(p * (1 - p) / s for s, p in zip(sizes, moved, strict=True)) / len(tasks) ** 2
    if mean in (0, 1):
        return mean, len(tasks) ** 2 / sum(1 / s for s in sizes)
    return mean, mean * (1 - mean) / variance


def share_interval(*tasks: Clusters, level: float = 0.95) -> Interval:
    return score_interval(*_mean_and_size(tasks), level)


def difference_interval(*tasks: Sequence[Sequence[tuple[int, int]]], level: float = 0.95
                        ) -> Interval:
    """``tasks``: of each query the pairs (right, reference right)."""
    gained = [[[int(a > b) for a, b in query] for query in task] for task in tasks]
    lost = [[[int(a < b) for a, b in query] for query in task] for task in tasks]
    (g, g_size), (m, m_size) = _mean_and_size(gained), _mean_and_size(lost)
    (g_low, g_high), (m_low, m_high) = (score_interval(g, g_size, level),
                                        score_interval(m, m_size, level))
    moments = np.zeros((2, 2))
    for plus, minus in zip(gained, lost, strict=True):
        n = np.array([len(query) for query in plus], float)
        values = np.array([[sum(q) for q in plus], [sum(q) for q in minus]], float)
        residuals = values - values.sum(1, keepdims=True) / n.sum() * n
        if len(n) > 1:
            moments += len(n) / (len(n) - 1) * residuals @ residuals.T / n.sum() ** 2
    scale = math.sqrt(moments[0, 0] * moments[1, 1])
    r = moments[0, 1] / scale if scale > 1e-15 else 0.0

    def length(one: float, other: float) -> float:
        return math.sqrt(max(one**2 + other**2 - 2 * r * one * other, 0))

    return g - m - length(g - g_low, m_high - m), g - m + length(g_high - g, m - m_low)


def drawn(value: float, interval: Interval, sets: Sequence[float], level: float = 0.95) -> Interval:
    """An interval of a mean over random sets, widened by the spread of the sets' values."""
    half = student.ppf((1 + level) / 2, len(sets) - 1) * np.std(sets, ddof=1) / np.sqrt(len(sets))
    return (value - math.hypot(value - interval[0], half),
            value + math.hypot(interval[1] - value, half))


def p_against_draws(*tasks: Sequence[Sequence[tuple[int, int]]], sets: Sequence[float]) -> float:
    """One minus the level at which the widened interval begins to hold 0."""
    value = float(np.mean([sum(a - b for q in task for a, b in q) / sum(map(len, task))
                           for task in tasks]))
    if value == 0:
        return 1.0

    def nearest(p: float) -> float:
        low, high = drawn(value, difference_interval(*tasks, level=1 - p), sets, 1 - p)
        return low if value > 0 else -high

    return float(brentq(nearest, 1e-9, 1 - 1e-12, xtol=1e-12))


def flip_p(*tasks: Sequence[Sequence[tuple[int, int]]]) -> float:
    """Mid-p of the sign-flip test: chance of each sum of ±differences, as fractions."""
    terms = [Fraction(sum(a - b for a, b in query), sum(map(len, task)))
             for task in tasks for query in task]
    observed, terms = abs(sum(terms)), [term for term in terms if term]
    if len(terms) < 2:
        return 1.0
    chances = {Fraction(0): 1.0}
    for term in terms:
        after: dict[Fraction, float] = {}
        for total, chance in chances.items():
            for signed in (total + term, total - term):
                after[signed] = after.get(signed, 0.0) + chance / 2
        chances = after
    return (sum(c for s, c in chances.items() if abs(s) > observed)
            + sum(c for s, c in chances.items() if abs(s) == observed) / 2)


def clusters(answers: pd.DataFrame, column: str = "correct") -> list[list[int]]:
    """Answers of each query."""
    return [group.astype(int).tolist() for _, group in answers.groupby("query")[column]]


def pairs(answers: pd.DataFrame) -> list[list[tuple[int, int]]]:
    """Pairs of each query, from columns ``correct`` and ``other_correct``."""
    return [list(zip(group.correct.astype(int), group.other_correct.astype(int), strict=True))
            for _, group in answers.groupby("query")]
