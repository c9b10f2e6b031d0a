"""The benchmark: word pairs and algorithms.

The union of the tasks of Hendel et al. (2023), on whose benchmark the copy-bias paper builds
(formulas.md §1.5), plus vowel counting, its proxy (§1.2). The word pairs were written for this
project; only the relations are those of the papers. The reference models are trained on a part of
them (column ``reference`` of the files), which has tasks of its own.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable

from prunelib.tasks.base import Task
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

#: The 18 tasks that Hendel et al. evaluate (formulas.md §1.5).
ICL18 = (
    "fr_en", "es_en", "en_fr", "en_es",
    "present_gerund", "present_past", "plural_singular", "antonyms",
    "country_capital", "person_language", "location_continent", "location_religion",
    "next_letter", "prev_letter", "list_first", "list_last", "to_upper", "to_lower",
)  # fmt: skip


#: Group, name, file, and the columns of inputs and outputs.
_WORDS = (
    ("translation", "fr_en", "translation", "fr", "en"),
    ("translation", "es_en", "translation", "es", "en"),
    ("translation", "en_fr", "translation", "en", "fr"),
    ("translation", "en_es", "translation", "en", "es"),
    ("translation", "it_en", "translation", "it", "en"),
    ("translation", "en_it", "translation", "en", "it"),
    ("linguistic", "present_gerund", "verbs", "present", "gerund"),
    ("linguistic", "present_past", "verbs", "present", "past"),
    ("linguistic", "present_past_perfect", "verbs", "present", "perfect"),
    ("linguistic", "plural_singular", "nouns", "plural", "singular"),
    ("linguistic", "singular_plural", "nouns", "singular", "plural"),
    ("linguistic", "antonyms", "antonyms", "word", "antonym"),
    ("knowledge", "country_capital", "country_capital", "country", "capital"),
    ("knowledge", "person_language", "person_language", "person", "language"),
    ("knowledge", "location_continent", "location_continent", "location", "continent"),
    ("knowledge", "location_religion", "location_religion", "location", "religion"),
)
#: How the tasks of the reference models' words are called.
_REFERENCE = "_reference"


def _words(group: str, name: str, file: str, source: str, target: str
           ) -> tuple[str, Callable[[], Task]]:
    return entry(group, name, f"{source} to {target}", lambda: columns(file, source, target))


def _words_of_reference_models(group: str, name: str, file: str, source: str, target: str
                               ) -> tuple[str, Callable[[], Task]]:
    """The pairs of a task on which the reference models are trained, in the same splits."""
    return entry(group, f"{name}{_REFERENCE}",
                 f"{source} to {target}: the words on which the reference models are trained",
                 lambda: columns(file, source, target, reference=True), origin=name)


TASKS: Tasks = dict([
    *(_words(*row) for row in _WORDS),
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
])  # fmt: skip

#: The same with the words of the reference models.
TASKS |= dict(_words_of_reference_models(*row) for row in _WORDS)


def _of_reference_models(names: Iterable[str]) -> tuple[str, ...]:
    """The same tasks, with the words of the reference models where they are made of words."""
    return tuple(f"{name}{_REFERENCE}" if f"{name}{_REFERENCE}" in TASKS else name
                 for name in names)


_ALL = tuple(name for name in TASKS if not name.endswith(_REFERENCE))

#: Suites ``reference`` and ``icl18_reference`` are ``all`` and ``icl18`` with the words that the
#: reference models know. They are trained on ``reference``, in this order: nothing is added to it
#: without training them again.
SUITES: Suites = {
    "icl18": ICL18,
    "union": tuple(name for name in _ALL if name != "vowel_counting"),
    "all": _ALL,
    "icl18_reference": _of_reference_models(ICL18),
    "reference": _of_reference_models(_ALL),
}
