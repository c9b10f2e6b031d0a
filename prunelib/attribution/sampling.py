"""How far mean scores would move with other prompts: standard errors and halves, by query.

The unit of independence is the query: scores of prompts that ask the same one are added up first.
Blocks of prompts are summed up by whoever scored them, and added in a fixed order, so the results
are bit-equal for any number of workers. No query is in two blocks (:func:`query_blocks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """What one block of prompts adds to the standard errors. All ``[components]``.

    With S_q the sum of a component's scores over the n_q prompts that ask query q:

    Attributes:
        squares: Σ S_q².
        weighted: Σ n_q S_q.
        half: Σ S_q over the first, third, … query.
    """

    squares: Array
    weighted: Array
    half: Array


@dataclass(frozen=True)
class Sampling:
    """How far mean scores can be trusted, from the prompts themselves.

    Attributes:
        queries: how many the prompts ask.
        errors: standard errors of the mean scores, ``[components]``; ``None`` of one query.
        halves: mean scores of either half of the queries, ``[2, components]``; ``None`` likewise.
    """

    queries: int
    errors: Array | None
    halves: Array | None

    def scaled(self, factor: float) -> Sampling:
        """The same of scores that are multiplied by a positive number."""
        return Sampling(self.queries, None if self.errors is None else self.errors * factor,
                        None if self.halves is None else self.halves * factor)


def query_numbers(queries: Sequence[str]) -> NDArray[np.intp]:
    """The number of each prompt's query, by first appearance: ``[prompts]``."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(query, len(numbers)) for query in queries], np.intp)


def query_blocks(queries: Sequence[str], size: int) -> list[list[int]]:
    """Prompts in blocks of about ``size``, those that ask the same query in the same block.

    By first appearance of the queries. Without repeated queries they are successive slices. Only a
    query of more than ``size`` prompts makes a larger block.
    """
    members: dict[str, list[int]] = {}
    for i, query in enumerate(queries):
        members.setdefault(query, []).append(i)
    blocks: list[list[int]] = []
    for prompts in members.values():
        if not blocks or len(blocks[-1]) + len(prompts) > size:
            blocks.append([])
        blocks[-1] += prompts
    return blocks


def enough(blocks: Sequence[Sequence[int]], prompts: int) -> int:
    """How many of the blocks hold so many prompts, or all of them."""
    held = np.cumsum([len(block) for block in blocks])
    return min(len(blocks), int(np.searchsorted(held, prompts)) + 1)


def moments(scores: Array, queries: Sequence[str]) -> Moments:
    """Of scores ``[prompts, components]`` and the query of each prompt."""
    sums, sizes = by_query(scores, queries)
    return Moments((sums**2).sum(0), sizes @ sums, sums[::2].sum(0))


def sampling(blocks: Sequence[Moments], sums: Sequence[Array],
             queries: Sequence[Sequence[str]]) -> Sampling:
    """Standard errors and halves of mean scores over all prompts of some blocks.

    The variance of a mean over N prompts of C queries is that of a ratio of sums over queries,
    C / (C - 1) · Σ (S_q - n_q·mean)² / N²: the squared standard error of the mean where every
    query is asked once.

    Args:
        blocks: of :func:`moments`.
        sums: scores summed over the prompts of each block, ``[components]`` each.
        queries: of the prompts of each block.
    """
    sizes = [np.bincount(query_numbers(of_block)) for of_block in queries]
    count, prompts = sum(map(len, sizes)), sum(int(n.sum()) for n in sizes)
    if count < 2:
        return Sampling(count, None, None)
    total = _added(sums)
    mean = total / prompts
    spread = (_added([block.squares for block in blocks])
              - 2 * mean * _added([block.weighted for block in blocks])
              + mean**2 * sum(int((n**2).sum()) for n in sizes))
    # Equal scores leave a rounding error of either sign.
    errors = np.sqrt(np.maximum(spread, 0) * count / (count - 1)) / prompts
    first, in_first = _added([block.half for block in blocks]), sum(
        int(n[::2].sum()) for n in sizes)
    halves = (np.stack([first / in_first, (total - first) / (prompts - in_first)])
              if in_first < prompts else None)
    return Sampling(count, errors, halves)


def mean_error(values: Array, queries: Sequence[str], weights: Array | None = None) -> Array:
    """Standard errors of means over prompts, or of ratios of means, by query.

    Args:
        values: ``[prompts, …]``.
        queries: of each prompt.
        weights: of the denominator where the statistic is Σ values / Σ weights,
            ``[prompts, …]``, broadcast to ``values``; 1 for a plain mean.

    Returns:
        ``[…]``; nan of fewer than two queries, or where the weights add up to nothing.
    """
    over = np.broadcast_to(np.ones(1) if weights is None else weights, values.shape)
    sums, _ = by_query(values, queries)
    bases, _ = by_query(over, queries)
    count = len(sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = sums.sum(0) / bases.sum(0)
        spread = ((sums - ratio * bases) ** 2).sum(0) * count / (count - 1)
        error: Array = np.sqrt(spread) / np.abs(bases.sum(0))
    return np.where(np.isfinite(error), error, np.nan)


def by_query(values: Array, queries: Sequence[str]) -> tuple[Array, NDArray[np.intp]]:
    """Sums over the prompts of each query, ``[queries, …]``, and how many these are."""
    numbers = query_numbers(queries)
    sizes = np.bincount(numbers)
    sums = np.zeros((len(sizes), *values.shape[1:]))
    np.add.at(sums, numbers, values)
    return sums, sizes


def _added(arrays: Sequence[Array]) -> Array:
    """The sum, in the order given."""
    total = arrays[0]
    for array in arrays[1:]:
        total = total + array
    return total
