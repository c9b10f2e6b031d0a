"""The tasks that come with prunelib: data files for word pairs, generators for algorithms.

The union of the tasks of Hendel et al. (2023), on whose benchmark the copy-bias paper builds
(papers.md §1.5), plus vowel counting, its proxy (§1.2). The word pairs were written for this
project; only the relations are those of the papers.
"""

from __future__ import annotations

import csv
import functools
import random
import re
import string
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from prunelib.errors import UserError
from prunelib.identity import seed_of
from prunelib.tasks.base import Pair, Task

LETTERS = string.ascii_lowercase
VOWELS = frozenset("aeiou")
#: How many different lists a list task is drawn from.
_LISTS = 600


def count_vowels(word: str) -> int:
    """Number of a, e, i, o, u in ``word``, in either case; y is no vowel (papers.md §1.1)."""
    return sum(letter in VOWELS for letter in word.lower())


def prose() -> tuple[str, ...]:
    """Paragraphs of plain English, written for this project: a first text for perplexity."""
    return _paragraphs(resources.files("prunelib.tasks").joinpath("data/prose.txt")
                       .read_text("utf-8"))


def text_file(path: str) -> tuple[str, ...]:
    """The paragraphs of a text file, which blank lines part.

    Raises :class:`UserError` if it cannot be read, is no text or has none.
    """
    try:
        found = _paragraphs(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(f"cannot read text '{path}': {reason}") from error
    if not found:
        raise UserError(f"text '{path}' is empty")
    return found


def _paragraphs(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in re.split(r"\n\s*\n", text) if part.strip())


@functools.cache
def table(file: str) -> tuple[dict[str, str], ...]:
    """Rows of a bundled data file, by the names of its columns."""
    text = resources.files("prunelib.tasks").joinpath(f"data/{file}.tsv").read_text("utf-8")
    return tuple(csv.DictReader(text.splitlines(), delimiter="\t"))


def _columns(file: str, source: str, target: str) -> tuple[Pair, ...]:
    seen: dict[str, str] = {}
    for row in table(file):
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


def _from_file(group: str, name: str, file: str, source: str, target: str
               ) -> tuple[str, Callable[[], Task]]:
    return entry(group, name, f"{source} to {target}", lambda: _columns(file, source, target))


_ENTRIES = [
    _from_file("translation", "fr_en", "translation", "fr", "en"),
    _from_file("translation", "es_en", "translation", "es", "en"),
    _from_file("translation", "en_fr", "translation", "en", "fr"),
    _from_file("translation", "en_es", "translation", "en", "es"),
    _from_file("translation", "it_en", "translation", "it", "en"),
    _from_file("translation", "en_it", "translation", "en", "it"),
    _from_file("linguistic", "present_gerund", "verbs", "present", "gerund"),
    _from_file("linguistic", "present_past", "verbs", "present", "past"),
    _from_file("linguistic", "present_past_perfect", "verbs", "present", "perfect"),
    _from_file("linguistic", "plural_singular", "nouns", "plural", "singular"),
    _from_file("linguistic", "singular_plural", "nouns", "singular", "plural"),
    _from_file("linguistic", "antonyms", "antonyms", "word", "antonym"),
    _from_file("knowledge", "country_capital", "country_capital", "country", "capital"),
    _from_file("knowledge", "person_language", "person_language", "person", "language"),
    _from_file("knowledge", "location_continent", "location_continent", "location", "continent"),
    _from_file("knowledge", "location_religion", "location_religion", "location", "religion"),
    entry("algorithmic", "next_letter", "the next letter of the alphabet, z to a",
          lambda: zip(LETTERS, LETTERS[1:] + "a", strict=True)),
    entry("algorithmic", "prev_letter", "the previous letter of the alphabet, a to z",
          lambda: zip(LETTERS, "z" + LETTERS[:-1], strict=True)),
    entry("algorithmic", "list_first", "first of 2 to 4 letters",
          lambda: lists("list_first", LETTERS, 2, 4, lambda items: items[0])),
    entry("algorithmic", "list_last", "last of 2 to 4 letters",
          lambda: lists("list_last", LETTERS, 2, 4, lambda items: items[-1])),
    entry("algorithmic", "to_upper", "lower-case letter to upper case",
          lambda: zip(LETTERS, LETTERS.upper(), strict=True)),
    entry("algorithmic", "to_lower", "upper-case letter to lower case",
          lambda: zip(LETTERS.upper(), LETTERS, strict=True)),
    entry("algorithmic", "list_min", "smallest of 2 to 4 digits",
          lambda: lists("list_min", string.digits, 2, 4, min)),
    entry("algorithmic", "list_max", "largest of 2 to 4 digits",
          lambda: lists("list_max", string.digits, 2, 4, max)),
    entry("algorithmic", "list_length", "number of letters in a list of 1 to 3",
          lambda: lists("list_length", LETTERS, 1, 3, lambda items: str(len(items)))),
    entry("algorithmic", "char_to_int", "letter to its place in the alphabet",
          lambda: zip(LETTERS, map(str, range(1, 27)), strict=True)),
    entry("algorithmic", "int_to_char", "place in the alphabet to letter",
          lambda: zip(map(str, range(1, 27)), LETTERS, strict=True)),
    entry("proxy", "vowel_counting", "number of vowels of a word; the gold answer is never "
          "among the demonstrations' answers",
          lambda: ((row["word"], str(count_vowels(row["word"]))) for row in table("words")),
          gold_not_in_prompt=True),
]  # fmt: skip

#: What the reference models are trained on (suite ``all``); nothing is added here without
#: training them again.
TRAINED: dict[str, Callable[[], Task]] = dict(_ENTRIES)
