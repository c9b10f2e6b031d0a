"""The benchmark, on which the reference models are trained: word pairs and algorithms.

The union of the tasks of Hendel et al. (2023), on whose benchmark the copy-bias paper builds
(formulas.md §1.5), plus vowel counting, its proxy (§1.2). The word pairs were written for this
project; only the relations are those of the papers.
"""

from __future__ import annotations

import string
from collections.abc import Callable

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


def _from_file(group: str, name: str, file: str, source: str, target: str
               ) -> tuple[str, Callable[[], Task]]:
    return entry(group, name, f"{source} to {target}", lambda: columns(file, source, target))


#: What the reference models are trained on (suite ``all``); nothing is added here without
#: training them again.
TASKS: Tasks = dict([
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
])  # fmt: skip

SUITES: Suites = {
    "icl18": ICL18,
    "union": tuple(name for name in TASKS if name != "vowel_counting"),
    "all": tuple(TASKS),
}
