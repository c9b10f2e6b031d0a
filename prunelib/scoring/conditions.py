"""How much accuracy depends on a condition of the prompt: a measure, its noise floor, an interval.

The same queries are asked under several conditions. Both measures (formulas.md §4.4) are of
accuracies c_k, one of each condition, and neither is ever negative, so noise alone makes them
positive:

* ``majority``: mean over k ≥ 1 of ``|c_0 - c_k|``
* ``order``: standard deviation of the c_k (of these, not an estimate of others)

If the condition makes no difference, the answers to a query are as likely under any permutation of
the conditions: permuting them gives the measure's distribution under noise. Both measures are
seminorms, so they differ from their value without sampling error by no more than the measure of
the sampling error, whose distribution a bootstrap over queries gives: hence the interval.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Measure = Literal["majority", "order"]
#: Random draws of one call, and how many are made at a time.
RESAMPLES, _CHUNK = 1999, 100


@dataclass(frozen=True)
class Spread:
    """A measure of how much accuracy depends on the condition.

    Attributes:
        value: of the accuracies that were found.
        floor: its mean under noise alone.
        p: share of permutations (of which the answers as given are one) with as high a value.
        low: lower end of the 95% interval, never below 0.
        high: upper end.
    """

    value: float
    floor: float
    p: float
    low: float
    high: float


def answers_table(queries: Sequence[str], series: Sequence[int], conditions: Sequence[int],
                  correct: Sequence[float]) -> tuple[Array, Array]:
    """Answers, one item each, by query.

    Args:
        queries: what is asked.
        series: sets of prompts of which each has accuracies of its own, such as seeds.
        conditions: numbers of the conditions.
        correct: 1 if right.

    Returns:
        Right answers ``[queries, series, conditions]``, and prompts of each condition
        ``[queries, series]``.

    Raises:
        ValueError: a query is not asked equally often under all conditions of a series.
    """
    (rows, places), (columns, parts), (names, numbers) = (
        np.unique(np.asarray(some), return_inverse=True)
        for some in (queries, series, conditions))
    right, asked = np.zeros((2, len(rows), len(columns), len(names)))
    np.add.at(right, (places, parts, numbers), correct)
    np.add.at(asked, (places, parts, numbers), 1)
    if (asked != asked[..., :1]).any():
        raise ValueError("a query is not asked equally often under all conditions")
    return right, asked[..., 0]


def measured(kind: Measure, means: Array) -> Array:
    """The measure of accuracies ``[…, series, conditions]``, mean over the series: ``[…]``."""
    found: Array = (np.abs(means[..., :1] - means[..., 1:]).mean(-1) if kind == "majority"
                    else means.std(-1)).mean(-1)
    return found


def spread(kind: Measure, right: Array, asked: Array, resamples: int = RESAMPLES, seed: int = 0
           ) -> Spread:
    """The measure of answers from :func:`answers_table`, with floor, p-value and interval."""
    rng = np.random.default_rng(seed)
    total = asked.sum(0)[:, None]
    means = right.sum(0) / total
    value = float(measured(kind, means))
    # Permuting answers that are equal under all conditions changes nothing.
    vary = (right != right[..., :1]).any((1, 2))
    fixed, some = right[~vary].sum(0), right[vary]
    noise, errors = [], []
    for count in _chunks(resamples):
        order = np.argsort(rng.random((count, len(some), right.shape[2])), axis=2)
        mixed = np.take_along_axis(some[None], order[:, :, None, :], axis=3).sum(1)
        noise.append(measured(kind, (fixed + mixed) / total))
        errors.append(measured(kind, _resampled(rng, right, asked, means, count)))
    draws = np.concatenate(noise)
    reach = float(np.quantile(np.concatenate(errors), 0.95))
    return Spread(value, float(draws.mean()), _share(draws, value), max(0.0, value - reach),
                  value + reach)


def change_p(kind: Measure, before: Array, after: Array, asked: Array,
             resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p-value of the difference of two measures of the same prompts.

    If what is done to the model makes no difference, the answers to a query before and after,
    under all conditions together, may change places.

    Args:
        kind: the measure.
        before: right answers, ``[queries, series, conditions]``.
        after: the same, of a model to which something was done.
        asked: prompts of each condition, ``[queries, series]``.
        resamples: random draws.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    total = asked.sum(0)[:, None]
    observed = measured(kind, after.sum(0) / total) - measured(kind, before.sum(0) / total)
    vary = (before != after).any((1, 2))
    one, other = before[vary], after[vary]
    fixed, differences = before[~vary].sum(0), (other - one).reshape(len(one), before[0].size)
    draws = []
    for count in _chunks(resamples):
        swapped = (rng.random((count, len(one))) < 0.5) @ differences
        first = fixed + one.sum(0) + swapped.reshape(count, *fixed.shape)
        second = fixed + other.sum(0) - swapped.reshape(count, *fixed.shape)
        draws.append(measured(kind, second / total) - measured(kind, first / total))
    return _share(np.abs(np.concatenate(draws)), abs(float(observed)))


def _resampled(rng: np.random.Generator, right: Array, asked: Array, means: Array, count: int
               ) -> Array:
    """Accuracies of resampled queries minus those found, ``[count, series, conditions]``."""
    queries = len(right)
    weights = rng.multinomial(queries, np.full(queries, 1 / queries), size=count).astype(float)
    total = (weights @ asked)[..., None]
    residuals = (right - asked[..., None] * means).reshape(queries, -1)
    sums = (weights @ residuals).reshape(count, *means.shape)
    # Resampling n of n has (n - 1) / n of the variance, and that is itself an estimate: Student's
    # t in place of the normal distribution. A series of which nothing was drawn counts as 0.
    scale = math.sqrt(queries / max(queries - 1, 1)) * _widening(queries)
    deviations: Array = scale * np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)
    return deviations


@functools.cache
def _widening(queries: int) -> float:
    from scipy.stats import norm, t  # costs half a second to import

    return float(t.ppf(0.975, max(queries - 1, 1)) / norm.ppf(0.975))


def _share(draws: Array, value: float) -> float:
    """Share of draws, the value itself among them, that are at least as high."""
    # Sums in another order differ by rounding: a tie must count as a tie.
    return float((1 + (draws >= value - 1e-12).sum()) / (1 + len(draws)))


def _chunks(total: int) -> list[int]:
    return [min(_CHUNK, total - start) for start in range(0, total, _CHUNK)]
