"""From scores of every prompt to scores of components, and how far these can be trusted.

The unit of independence is the query: prompts that ask the same one count as one observation, their
mean. ``mean`` weights a query by its prompts, so that it is the mean over prompts; ``trimmed``
leaves out the fifth of the queries at either end, component by component.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prunelib.attribution.sampling import by_query, mean_error, query_numbers
from prunelib.identity import seed_of

Array = NDArray[np.float64]
Aggregate = Literal["mean", "trimmed"]
#: From scores ``[components]`` to components, the first to be switched off first.
Order = Callable[[Array], Sequence[int]]
#: Share of the queries that ``trimmed`` leaves out at either end.
TRIM = 0.2
#: Ways to halve the queries over which the overlap is averaged.
SPLITS = 10


@dataclass(frozen=True)
class Estimate:
    """Scores of one layer's components.

    Attributes:
        scores: ``[components]``.
        errors: their standard errors over queries, ``[components]``; ``None`` of one query.
        queries: how many the prompts ask.
    """

    scores: Array
    errors: Array | None
    queries: int

    @property
    def sampling_error(self) -> float | None:
        """Root of the summed squares of the standard errors, over that of the scores.

        ``None`` of one query, and where all scores are 0.
        """
        norm = float(np.linalg.norm(self.scores))
        return None if self.errors is None or norm == 0 else float(
            np.linalg.norm(self.errors)) / norm


def aggregate(each: Array, queries: Sequence[str], how: Aggregate) -> Estimate:
    """Scores of components from those of every prompt, ``[prompts, components]``."""
    count = len(set(queries))
    if count < 2:
        return Estimate(_scores(each, queries, how), None, count)
    errors = mean_error(each, queries) if how == "mean" else _trimmed_errors(each, queries)
    return Estimate(_scores(each, queries, how), errors, count)


def _scores(each: Array, queries: Sequence[str], how: Aggregate) -> Array:
    if how == "mean":
        return np.asarray(each.mean(0))
    return np.asarray(_kept(_query_means(each, queries)).mean(0))


def _kept(means: Array) -> Array:
    """What is left of ``[queries, components]`` without the ends, ascending."""
    cut = int(TRIM * len(means))
    return np.sort(means, axis=0)[cut : len(means) - cut]


def _trimmed_errors(each: Array, queries: Sequence[str]) -> Array:
    """Standard errors of trimmed means, ``[components]``.

    The standard error of a trimmed mean over n queries with g trimmed at either end: the winsorised
    standard deviation over (1 - 2g / n)·√n (Tukey and McLaughlin 1963, as in
    ``scipy.stats.mstats.trimmed_stde``).
    """
    means = _query_means(each, queries)
    kept, count = _kept(means), len(means)
    cut = (count - len(kept)) // 2
    held = np.concatenate([np.repeat(kept[:1], cut, 0), kept, np.repeat(kept[-1:], cut, 0)])
    return np.asarray(held.std(axis=0, ddof=1) / ((1 - 2 * cut / count) * np.sqrt(count)))


def _query_means(each: Array, queries: Sequence[str]) -> Array:
    """Mean scores of the prompts of each query, ``[queries, components]``."""
    sums, sizes = by_query(each, queries)
    return sums / sizes[:, None]


def half_scores(each: Array, queries: Sequence[str], how: Aggregate, split: int = 0
                ) -> Array | None:
    """Scores by either half of the queries, ``[2, components]``; ``None`` of one query.

    Split 0 takes every other query, by first appearance; others draw the halves.
    """
    numbers = query_numbers(queries)
    count = int(numbers.max()) + 1
    if count < 2:
        return None
    first = np.arange(count) % 2 == 0
    if split:
        first = np.random.default_rng(seed_of("halves of queries", split)).permutation(first)
    return np.stack([_scores(each[some], [queries[i] for i in np.flatnonzero(some)], how)
                     for some in (first[numbers], ~first[numbers])])


def overlap(each: Array, queries: Sequence[str], how: Aggregate, order: Order,
            counts: Sequence[int]) -> float | None:
    """What share of the components that would be switched off two halves of the queries agree on.

    The mean over :data:`SPLITS` halvings and over ``counts``, the numbers of components that the
    rates of a search switch off. ``None`` of one query.
    """
    shares = []
    for split in range(SPLITS):
        halves = half_scores(each, queries, how, split)
        if halves is None:
            return None
        orders = [order(half) for half in halves]
        shares += [len(set(orders[0][:n]) & set(orders[1][:n])) / n for n in counts]
    return float(np.mean(shares))
