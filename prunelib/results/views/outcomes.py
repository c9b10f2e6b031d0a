"""Sums over answers, and over pairs of answers to one prompt, clustered by query.

A *cell* is the answers of a run that have all in common but example and query: the parts
(:mod:`prunelib.results.outcomes`) of one unit, or of several that answered the same task.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from prunelib.results.views.arrow_columns import numbers
from prunelib.scoring.statistics import Array, pair_sums, share_sums

Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]
#: Numbers of parts; where several units answered a prompt, the part counts that comes first.
Cell = tuple[int, ...]
#: Reads the summary of all parts, and example and query of prompts by their digest.
Load = Callable[[], tuple[pa.Table, dict[str, pa.Table]]]
#: Columns that tell the prompts of a task apart, with the example.
_PLACE = ("engine", "task", "shots", "seed", "format")


class Tally(NamedTuple):
    """Sums over the answers of some cells of one task; ``rights`` and ``copies`` over queries."""

    n: int
    prompts: int
    queries: int
    correct: int
    copied: int
    failed: int
    rights: Array
    copies: Array


class Gaps(NamedTuple):
    """Pairs of answers, and how many of them differ in which way."""

    n: int
    gained: int
    lost: int
    more_copied: int
    less_copied: int


class Flips(NamedTuple):
    """Differences summed over the pairs of a query: how many queries have which; all pairs."""

    values: Array
    counts: Numbers
    n: float


class PairTally(NamedTuple):
    """Sums over pairs of answers to one prompt; the last four over queries."""

    n: int
    prompts: int
    queries: int
    correct: int
    other_correct: int
    copied: int
    other_copied: int
    gained: int
    lost: int
    pairs: Array
    copied_pairs: Array
    flips: Flips
    copied_flips: Flips


@dataclass(frozen=True)
class _Answers:
    """Answers of a cell: examples, numbers of their queries within the task, and outcomes."""

    place: int
    examples: NDArray[np.int32]
    queries: Numbers
    right: Flags
    copied: Flags
    failed: Flags

    def at(self, places: Numbers) -> _Answers:
        """Some of them, in this order."""
        return _Answers(self.place, self.examples[places], self.queries[places],
                        self.right[places], self.copied[places], self.failed[places])


class Outcomes:
    """The outcomes of all predictions, read when they are first asked for."""

    def __init__(self, load: Load) -> None:
        self._load = load

    @functools.cached_property
    def _read(self) -> tuple[pa.Table, dict[str, pa.Table]]:
        return self._load()

    @property
    def summary(self) -> pa.Table:
        """The summary of all parts; a part's number is its row."""
        return self._read[0]

    @functools.cached_property
    def _places(self) -> Numbers:
        numbers: dict[tuple[object, ...], int] = {}
        rows = zip(*(self.summary[name].to_pylist() for name in _PLACE), strict=True)
        return np.fromiter((numbers.setdefault(row, len(numbers)) for row in rows), np.int64)

    @functools.cached_property
    def _bits(self) -> list[tuple[int, int, int]]:
        """Of each part the answers that are right, copied, failed, as the bits of a number."""
        columns = (map(int.from_bytes, self.summary[name].to_pylist())
                   for name in ("right", "copied", "failed"))
        return list(zip(*columns, strict=True))

    @functools.cached_property
    def _sizes(self) -> list[int]:
        return list(self.summary["n"].to_pylist())

    @functools.cached_property
    def _digests(self) -> list[str]:
        return list(self.summary["prompts"].to_pylist())

    @functools.cached_property
    def _prompts(self) -> list[tuple[NDArray[np.int32], Numbers]]:
        """Examples and numbers of queries of each part."""
        keys = list(zip(self.summary["task"].to_pylist(), self._digests, strict=True))
        of_task: dict[str, dict[str, None]] = defaultdict(dict)
        for task, digest in keys:
            of_task[task][digest] = None
        found: dict[tuple[str, str], tuple[NDArray[np.int32], Numbers]] = {}
        for task, digests in of_task.items():
            prompts = [self._read[1][digest] for digest in digests]
            texts = pa.chunked_array([rows["query"].combine_chunks() for rows in prompts],
                                     pa.string()).dictionary_encode().unify_dictionaries()
            for digest, rows, chunk in zip(digests, prompts, texts.chunks, strict=True):
                found[task, digest] = (numbers(rows["example"]),
                                       numbers(chunk.indices).astype(np.int64))
        return [found[key] for key in keys]

    def counts(self, cell: Cell) -> tuple[int, int, int]:
        """Answers of a cell, right ones, and copying errors."""
        if len(cell) == 1:
            right, copied, _ = (bits.bit_count() for bits in self._bits[cell[0]])
            return self._sizes[cell[0]], right, copied
        answers = self._answers(cell)
        return len(answers.right), int(answers.right.sum()), int(answers.copied.sum())

    def _answers(self, cell: Cell) -> _Answers:
        first, *others = (self._part(part) for part in cell)
        if not others:
            return first
        together = _Answers(first.place, *(
            np.concatenate([getattr(one, name) for one in (first, *others)])
            for name in ("examples", "queries", "right", "copied", "failed")))
        return together.at(np.unique(together.examples, return_index=True)[1])

    def _part(self, part: int) -> _Answers:
        examples, queries = self._prompts[part]
        length = -(-len(examples) // 8)
        right, copied, failed = (
            np.unpackbits(np.frombuffer(bits.to_bytes(length), np.uint8), count=len(examples)
                          ).view(bool) for bits in self._bits[part])
        return _Answers(int(self._places[part]), examples, queries, right, copied, failed)

    def tally(self, cells: Sequence[Cell]) -> Tally:
        """Sums over cells of one task."""
        answers = [self._answers(cell) for cell in cells]
        size = _by_query([one.queries for one in answers])
        right, copied = (_by_query([one.queries[getattr(one, name)] for one in answers], len(size))
                         for name in ("right", "copied"))
        asked = size > 0
        return Tally(
            int(size.sum()), _different(answers), int(asked.sum()), int(right.sum()),
            int(copied.sum()), sum(int(one.failed.sum()) for one in answers),
            share_sums(size[asked], right[asked]), share_sums(size[asked], copied[asked]))

    def gaps(self, ours: Cell, theirs: Cell) -> Gaps:
        """Pairs of answers of two cells to one prompt."""
        if len(ours) == len(theirs) == 1 and self._digests[ours[0]] == self._digests[theirs[0]]:
            right, copied, _ = self._bits[ours[0]]
            other_right, other_copied, _ = self._bits[theirs[0]]
            n = self._sizes[ours[0]]
        else:
            a, b = self._pair(ours, theirs)
            right, copied, other_right, other_copied = (int.from_bytes(np.packbits(flags)) for flags
                                                        in (a.right, a.copied, b.right, b.copied))
            n = len(a.right)
        return Gaps(n, *(bits.bit_count() for bits in (
            right & ~other_right, other_right & ~right, copied & ~other_copied,
            other_copied & ~copied)))

    def tally_pairs(self, ours: Sequence[Cell], theirs: Sequence[Cell]) -> PairTally:
        """Sums over pairs of answers: of each cell of ``ours`` with that of ``theirs`` beside it.

        All are of one task.
        """
        pairs = [self._pair(*cells) for cells in zip(ours, theirs, strict=True)]
        size = _by_query([a.queries for a, _ in pairs])

        def changed(name: str, more: int, less: int) -> Numbers:
            """Pairs of each query where only one of the two has it."""
            return _by_query([pair[0].queries[getattr(pair[more], name)
                                              & ~getattr(pair[less], name)] for pair in pairs],
                             len(size))

        gained, lost = changed("right", 0, 1), changed("right", 1, 0)
        more, less = changed("copied", 0, 1), changed("copied", 1, 0)
        asked = size > 0
        size, gained, lost, more, less = (values[asked]
                                          for values in (size, gained, lost, more, less))
        return PairTally(
            int(size.sum()), _different([a for a, _ in pairs]), len(size),
            sum(int(a.right.sum()) for a, _ in pairs), sum(int(b.right.sum()) for _, b in pairs),
            sum(int(a.copied.sum()) for a, _ in pairs), sum(int(b.copied.sum()) for _, b in pairs),
            int(gained.sum()), int(lost.sum()), pair_sums(size, gained, lost),
            pair_sums(size, more, less), _flips(size, gained - lost), _flips(size, more - less))

    def _pair(self, ours: Cell, theirs: Cell) -> tuple[_Answers, _Answers]:
        """The answers to the prompts that both have, in one order."""
        a, b = self._answers(ours), self._answers(theirs)
        if np.array_equal(a.examples, b.examples):
            return a, b
        _, first, second = np.intersect1d(a.examples, b.examples, assume_unique=True,
                                          return_indices=True)
        return a.at(first), b.at(second)


def _by_query(queries: Sequence[Numbers], length: int = 0) -> Numbers:
    """How often each query comes."""
    return np.bincount(np.concatenate(queries), minlength=length)


def _different(answers: Sequence[_Answers]) -> int:
    """Different prompts."""
    places: dict[int, list[NDArray[np.int32]]] = defaultdict(list)
    for one in answers:
        places[one.place].append(one.examples)
    return sum(len(functools.reduce(_union, examples)) for examples in places.values())


def _union(one: NDArray[np.int32], other: NDArray[np.int32]) -> NDArray[np.int32]:
    return one if np.array_equal(one, other) else np.union1d(one, other)


def _flips(size: Numbers, difference: Numbers) -> Flips:
    values, counts = np.unique(difference, return_counts=True)
    return Flips(values.astype(float), counts, float(size.sum()))
