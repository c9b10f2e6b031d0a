"""Tasks out of the reference models' distribution.

Near: what the reference models were asked, of other things (longer lists, digits for letters,
words that they have not read). They can do some of it. Far: what they were never asked. They
cannot do it; a model of the hub can, and what is copied shows anyway.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterable, Iterator

from prunelib.identity import seed_of
from prunelib.tasks.base import Pair
from prunelib.tasks.sources.base import (
    LETTERS,
    Suites,
    Tasks,
    columns,
    count_vowels,
    entry,
    lists,
    table,
)

_COUNTS = 600


def _words(answer: Callable[[str], str]) -> Iterator[Pair]:
    return ((row["word"], answer(row["word"])) for row in table("words"))


def _categories() -> tuple[Pair, ...]:
    return columns("categories", "word", "category")


def _object_counts() -> Iterator[Pair]:
    """Some words, and how many of them are of one kind, which every kind is asked for in turn."""
    rng = random.Random(seed_of("generator", "object_counting", 1))  # noqa: S311
    kinds: dict[str, list[str]] = {}
    for word, kind in _categories():
        kinds.setdefault(kind, []).append(word)
    for i in range(_COUNTS):
        kind = sorted(kinds)[i % len(kinds)]
        count, others = rng.randint(1, 4), [k for k in sorted(kinds) if k != kind]
        words = rng.sample(kinds[kind], count) + [
            rng.choice(kinds[other]) for other in rng.sample(others, rng.randint(1, 3))]
        rng.shuffle(words)
        yield f"{', '.join(words)}: how many are of the kind {kind}", str(count)


def _new_words() -> Iterator[Pair]:
    known = {row["word"] for row in table("words")}
    return ((word, str(count_vowels(word))) for word, _ in _categories() if word not in known)


def _numbers(answer: Callable[[int], object]) -> Iterable[Pair]:
    return [(str(n), str(answer(n))) for n in range(1, 100)]


#: ``origin``: inputs that another task has too are in the same split there.
TASKS: Tasks = dict([
    # Near.
    entry("algorithmic", "list_first_long", "first of 5 or 6 letters",
          lambda: lists("list_first_long", LETTERS, 5, 6, lambda items: items[0])),
    entry("algorithmic", "list_last_long", "last of 5 or 6 letters",
          lambda: lists("list_last_long", LETTERS, 5, 6, lambda items: items[-1])),
    entry("algorithmic", "list_max_long", "largest of 5 or 6 digits",
          lambda: lists("list_max_long", string.digits, 5, 6, max)),
    entry("algorithmic", "list_first_digit", "first of 2 to 4 digits",
          lambda: lists("list_first_digit", string.digits, 2, 4, lambda items: items[0]),
          origin="list_max"),
    entry("linguistic", "vowel_counting_new", "number of vowels of words that vowel counting "
          "does not have", _new_words),
    # Far.
    entry("linguistic", "word_category", "category of a word", _categories),
    entry("algorithmic", "object_counting", "how many of some words are of one kind, after the "
          "task of BIG-bench", _object_counts),
    entry("linguistic", "first_letter", "first letter of a word",
          lambda: _words(lambda word: word[0]), origin="vowel_counting"),
    entry("linguistic", "last_letter", "last letter of a word",
          lambda: _words(lambda word: word[-1]), origin="vowel_counting"),
    entry("algorithmic", "consonant_counting", "number of consonants of a word",
          lambda: _words(lambda word: str(len(word) - count_vowels(word))),
          origin="vowel_counting"),
    entry("algorithmic", "list_second", "second of 2 to 4 letters",
          lambda: lists("list_second", LETTERS, 2, 4, lambda items: items[1]),
          origin="list_first"),
    entry("algorithmic", "letter_after_next", "the letter two places on in the alphabet",
          lambda: zip(LETTERS, LETTERS[2:] + LETTERS[:2], strict=True), origin="next_letter"),
    entry("algorithmic", "successor", "the number that follows", lambda: _numbers(lambda n: n + 1)),
    entry("algorithmic", "parity", "whether a number is even or odd",
          lambda: _numbers(lambda n: ("even", "odd")[n % 2])),
])  # fmt: skip

SUITES: Suites = {"ood": tuple(TASKS)}
