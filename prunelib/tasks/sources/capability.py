"""Capability: a multiple-choice set, made of those bundled words that the reference models know."""

from __future__ import annotations

import random
from collections.abc import Iterator

from prunelib.identity import seed_of
from prunelib.tasks.base import Pair, PromptFormat
from prunelib.tasks.sources.base import Suites, Tasks, columns, entry


def _questions() -> Iterator[Pair]:
    for question, file, source, target in (
        ("Choose the capital of {}", "country_capital", "country", "capital"),
        ("Choose the continent of {}", "location_continent", "location", "continent"),
        ("Choose the English word for {}", "translation", "fr", "en"),
    ):
        answers = dict(columns(file, source, target, reference=True))
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


TASKS: Tasks = dict([
    entry("capability", "general_knowledge", "capitals, continents and translations among four "
          "choices", _questions, options=("A", "B", "C", "D"),
          format=PromptFormat("", "", " ", "\n\n")),
])  # fmt: skip

SUITES: Suites = {"capability": tuple(TASKS)}
