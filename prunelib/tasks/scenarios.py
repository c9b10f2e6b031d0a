"""Bundled tasks that no reference model is trained on: more ways to copy, and other questions.

* Proxies: copying scenarios beside vowel counting. ``…_unseen`` are tasks of the benchmark with
  the rule of vowel counting: no demonstration carries the gold answer, so whatever is copied is
  wrong (papers.md §1.2). In ``random_associations`` the answer *is* in the prompt, once, and
  copying it from the wrong place is the error.
  ``varied_copying`` is a mixture: what is copied is a digit here and a letter there.
* Out of distribution, near: what the reference models were asked, of other things (longer lists,
  digits for letters, words that they have not read). They can do some of it. Far: what they were
  never asked. They cannot do it; a model of the hub can, and what is copied shows anyway.
* Capability: a multiple-choice set, made of the bundled tables.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import string
from collections.abc import Callable, Iterable, Iterator

from prunelib.identity import seed_of
from prunelib.tasks.base import Pair, PromptFormat, Task
from prunelib.tasks.bundled import LETTERS, TRAINED, count_vowels, entry, lists, table

_ASSOCIATIONS, _COUNTS = 600, 600


def _unseen(name: str) -> tuple[str, Callable[[], Task]]:
    """A trained task whose gold answer no demonstration carries, divided into the same splits."""
    derived = f"{name}_unseen"
    return derived, functools.cache(lambda: _without_gold(TRAINED[name](), derived))


def _without_gold(task: Task, name: str) -> Task:
    return dataclasses.replace(
        task, name=name, group="proxy", gold_not_in_prompt=True, origin=task.name,
        description=f"{task.description}; the gold answer is never among the demonstrations'",
    )  # fmt: skip


def _associations() -> Iterator[Pair]:
    """Different random words, each with a random letter: only the prompt says which."""
    rng = random.Random(seed_of("generator", "random_associations", 1))  # noqa: S311
    words: dict[str, None] = {}
    while len(words) < _ASSOCIATIONS:
        words["".join(rng.choices(LETTERS, k=rng.randint(3, 5)))] = None
    return ((word, rng.choice(LETTERS)) for word in words)


def _words(answer: Callable[[str], str]) -> Iterator[Pair]:
    return ((row["word"], answer(row["word"])) for row in table("words"))


def _categories() -> Iterator[Pair]:
    return ((row["word"], row["category"]) for row in table("categories"))


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


def _questions() -> Iterator[Pair]:
    for question, file, source, target in (
        ("Choose the capital of {}", "country_capital", "country", "capital"),
        ("Choose the continent of {}", "location_continent", "location", "continent"),
        ("Choose the English word for {}", "translation", "fr", "en"),
    ):
        answers = {row[source]: row[target] for row in table(file)}
        yield from _four_choices(question, answers)


def _four_choices(question: str, answers: dict[str, str]) -> Iterator[Pair]:
    """Every question with its answer and three others, in random order, by their letters."""
    others = sorted(set(answers.values()))
    for subject, gold in answers.items():
        rng = random.Random(seed_of("choices", question, subject))  # noqa: S311
        choices = [gold, *rng.sample([o for o in others if o != gold], 3)]
        rng.shuffle(choices)
        lines = [f"{letter}: {choice}" for letter, choice in zip("ABCD", choices, strict=True)]
        yield ("\n".join([question.format(subject), *lines, "Answer:"]),
               "ABCD"[choices.index(gold)])


def _numbers(answer: Callable[[int], object]) -> Iterable[Pair]:
    return [(str(n), str(answer(n))) for n in range(1, 100)]


PROXIES: dict[str, Callable[[], Task]] = dict([
    # Labels: a demonstration's label is a plausible answer of the right kind, and never right.
    _unseen("location_continent"),
    _unseen("location_religion"),
    entry("proxy", "word_category_unseen", "category of a word; the gold answer is never among "
          "the demonstrations'", _categories, gold_not_in_prompt=True, origin="word_category"),
    # Lists: the answer stands in the query, wrong ones in the demonstrations.
    _unseen("list_first"),
    _unseen("list_last"),
    _unseen("list_max"),
    _unseen("list_length"),
    ("varied_copying", functools.cache(lambda: Task(
        "varied_copying", "proxy", (), "in turn: vowel counting, last and largest of a list, upper "
        "case, next letter; the gold answer is never among the demonstrations'",
        parts=(TRAINED["vowel_counting"](), *(
            _without_gold(TRAINED[name](), f"{name}_unseen")
            for name in ("list_last", "to_upper", "next_letter", "list_max")))))),
    entry("proxy", "random_associations", "the letter that stood behind the same random word "
          "before", _associations, query_in_prompt=True),
])  # fmt: skip

#: ``origin``: inputs that another task has too are in the same split there.
OOD: dict[str, Callable[[], Task]] = dict([
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

CAPABILITY: dict[str, Callable[[], Task]] = dict([
    entry("capability", "general_knowledge", "capitals, continents and translations among four "
          "choices", _questions, options=("A", "B", "C", "D"),
          format=PromptFormat("", "", " ", "\n\n")),
])  # fmt: skip
