"""What sources of tasks are written with: tables, seeded generators, makers."""

from __future__ import annotations

import csv
import functools
import random
import string
from collections.abc import Callable, Iterable
from importlib import resources
from typing import Any, Protocol

from prunelib.identity import seed_of
from prunelib.tasks.base import Pair, Task

LETTERS = string.ascii_lowercase
VOWELS = frozenset("aeiou")
#: How many different lists a list task is drawn from.
_LISTS = 600

#: Makers of tasks by name: pairs are made when a task is first asked for.
Tasks = dict[str, Callable[[], Task]]
#: Names of several tasks by the name that stands for them.
Suites = dict[str, tuple[str, ...]]


class Source(Protocol):
    """A module that provides tasks."""

    TASKS: Tasks
    SUITES: Suites


def count_vowels(word: str) -> int:
    """Number of a, e, i, o, u in ``word``, in either case; y is no vowel (formulas.md §1.1)."""
    return sum(letter in VOWELS for letter in word.lower())


@functools.cache
def table(file: str) -> tuple[dict[str, str], ...]:
    """Rows of a bundled data file, by the names of its columns."""
    text = resources.files("prunelib.tasks").joinpath(f"data/{file}.tsv").read_text("utf-8")
    return tuple(csv.DictReader(text.splitlines(), delimiter="\t"))


def columns(file: str, source: str, target: str, reference: bool = False) -> tuple[Pair, ...]:
    """Pairs of two columns of a bundled data file, the first of each input.

    ``reference``: only the words on which the reference models are trained.
    """
    seen: dict[str, str] = {}
    for row in table(file):
        if not reference or row["reference"]:
            seen.setdefault(row[source], row[target])
    return tuple(seen.items())


def lists(name: str, alphabet: str, low: int, high: int, answer: Callable[[list[str]], str]
           ) -> tuple[Pair, ...]:
    """``_LISTS`` different lists of ``low`` to ``high`` different elements, with their answers."""
    rng = random.Random(seed_of("generator", name, 1))  # noqa: S311
    seen: dict[str, str] = {}
    while len(seen) < _LISTS:
        items = rng.sample(alphabet, rng.randint(low, high))
        seen[",".join(items)] = answer(items)
    return tuple(seen.items())


def entry(
    group: str, name: str, description: str, make: Callable[[], Iterable[Pair]], **rules: Any
) -> tuple[str, Callable[[], Task]]:
    """Name and maker of a task, whose pairs are made when it is first asked for."""
    return name, functools.cache(lambda: Task(name, group, tuple(make()), description, **rules))
