"""Proxies: copying scenarios beside vowel counting, on which no reference model is trained.

``…_unseen`` are tasks of the benchmark, of words that the reference models know, with the rule of
vowel counting: no demonstration carries the gold answer, so whatever is copied is wrong
(formulas.md §1.2). In ``random_associations`` the answer *is* in the prompt, once, and copying it
from the wrong place is the error.
``varied_copying`` is a mixture: what is copied is a digit here and a letter there.
"""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable, Iterator

from prunelib.identity import seed_of
from prunelib.tasks.base import Pair, Task
from prunelib.tasks.sources.base import LETTERS, Suites, Tasks, columns, entry
from prunelib.tasks.sources.benchmark import TASKS as BENCHMARK

_ASSOCIATIONS = 600


def _unseen(name: str) -> tuple[str, Callable[[], Task]]:
    """A trained task whose gold answer no demonstration carries, divided into the same splits."""
    derived, trained = f"{name}_unseen", f"{name}_reference"
    return derived, functools.cache(lambda: _without_gold(
        BENCHMARK.get(trained, BENCHMARK[name])(), derived))


def _without_gold(task: Task, name: str) -> Task:
    return dataclasses.replace(
        task, name=name, group="proxy", gold_not_in_prompt=True, origin=task.origin or task.name,
        description=f"{task.description}; the gold answer is never among the demonstrations'",
    )  # fmt: skip


def _associations() -> Iterator[Pair]:
    """Different random words, each with a random letter: only the prompt says which."""
    rng = random.Random(seed_of("generator", "random_associations", 1))  # noqa: S311
    words: dict[str, None] = {}
    while len(words) < _ASSOCIATIONS:
        words["".join(rng.choices(LETTERS, k=rng.randint(3, 5)))] = None
    return ((word, rng.choice(LETTERS)) for word in words)


TASKS: Tasks = dict([
    # Labels: a demonstration's label is a plausible answer of the right kind, and never right.
    _unseen("location_continent"),
    _unseen("location_religion"),
    entry("proxy", "word_category_unseen", "category of a word; the gold answer is never among "
          "the demonstrations'", lambda: columns("categories", "word", "category"),
          gold_not_in_prompt=True, origin="word_category"),
    # Lists: the answer stands in the query, wrong ones in the demonstrations.
    _unseen("list_first"),
    _unseen("list_last"),
    _unseen("list_max"),
    _unseen("list_length"),
    ("varied_copying", functools.cache(lambda: Task(
        "varied_copying", "proxy", (), "in turn: vowel counting, last and largest of a list, upper "
        "case, next letter; the gold answer is never among the demonstrations'",
        parts=(BENCHMARK["vowel_counting"](), *(
            _without_gold(BENCHMARK[name](), f"{name}_unseen")
            for name in ("list_last", "to_upper", "next_letter", "list_max")))))),
    entry("proxy", "random_associations", "the letter that stood behind the same random word "
          "before", _associations, query_in_prompt=True),
])  # fmt: skip

SUITES: Suites = {"proxies": ("vowel_counting", *TASKS)}
