"""Two-class tasks that a character-level model can learn in its prompt, made from nothing.

The reference models are trained on none of them. What decides is in the characters, so that the
classes can be told apart even where their names say nothing (:mod:`prunelib.tasks.label_words`).
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator

from prunelib.identity import seed_of
from prunelib.tasks.base import Pair
from prunelib.tasks.sources.base import LETTERS, Suites, Tasks, entry, table

#: Inputs of one class.
_EACH = 300


def _strings(name: str, alphabet: str, low: int, high: int) -> list[str]:
    """``_EACH`` different strings of ``low`` to ``high`` characters."""
    rng = random.Random(seed_of("generator", name, 1))  # noqa: S311
    found: dict[str, None] = {}
    while len(found) < _EACH:
        found["".join(rng.choices(alphabet, k=rng.randint(low, high)))] = None
    return list(found)


def _number_or_word() -> Iterator[Pair]:
    words = [row["word"] for row in table("words")][:_EACH]
    for number, word in zip(_strings("number_or_word", string.digits, 3, 5), words, strict=True):
        yield number, "number"
        yield word, "word"


def _upper_or_lower() -> Iterator[Pair]:
    for upper, lower in zip(_strings("upper", LETTERS.upper(), 2, 4),
                            _strings("lower", LETTERS, 2, 4), strict=True):
        yield upper, "upper"
        yield lower, "lower"


def _loud_or_quiet() -> Iterator[Pair]:
    for i, row in enumerate(table("words")):
        yield (row["word"], "quiet") if i % 2 else (row["word"].upper(), "loud")


TASKS: Tasks = dict([
    entry("linguistic", "number_or_word", "number of 3 to 5 digits, or word", _number_or_word,
          origin="vowel_counting"),
    entry("linguistic", "upper_or_lower", "2 to 4 letters in upper or in lower case",
          _upper_or_lower),
    entry("linguistic", "loud_or_quiet", "word in upper or in lower case", _loud_or_quiet,
          origin="vowel_counting"),
])  # fmt: skip

SUITES: Suites = {"classification": tuple(TASKS)}
