"""Answers chosen among options: the one to which the model gives the highest probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prunelib.engines.base import Completion, Engine
from prunelib.errors import UserError
from prunelib.tasks import Example, Task
from prunelib.tasks.tokenization import answer_tokens

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Choice:
    """Which option a model chose, and why.

    Attributes:
        best: index of the option with the highest score, the first of equals.
        scores: natural log-probability of every option after the prompt: the sum over its
            tokens, teacher-forced, not divided by their number.
    """

    best: int
    scores: tuple[float, ...]


def choose_options(
    engine: Engine, prompts: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]]
) -> list[Choice]:
    """The option of each prompt to which the engine's live model gives the highest probability.

    Options that begin alike share what they begin with: one request for each place of their
    trie where some of them go on, all in one call of :meth:`Engine.logprobs`. Options of one
    token take one request a prompt.

    Args:
        engine: with the intervention that is meant.
        prompts: token ids of each prompt.
        options: token ids of each prompt's options, in the context of the prompt
            (:func:`~prunelib.tasks.tokenization.answer_tokens`).

    Raises:
        UserError: an option is the beginning of another one, which it would always beat.
        UnitError: a prompt with an option fills the context, or an id does not exist.
    """
    places: list[tuple[int, Ids]] = []
    nexts: list[list[int]] = []
    for row, some in enumerate(options):
        for begun, continuations in _trie(some).items():
            places.append((row, begun))
            nexts.append(continuations)
    answers = engine.logprobs([[*prompts[row], *begun] for row, begun in places], nexts)
    found = {(*place, token): logprob
             for place, tokens, logprobs in zip(places, nexts, answers, strict=True)
             for token, logprob in zip(tokens, logprobs, strict=True)}
    choices = []
    for row, some in enumerate(options):
        scores = tuple(sum(found[row, tuple(option[:i]), token] for i, token in enumerate(option))
                       for option in some)
        choices.append(Choice(scores.index(max(scores)), scores))
    return choices


def answers_of(engine: Engine, task: Task, examples: Sequence[Example], tokenizer: Any
               ) -> list[Completion]:
    """The most probable of a task's options for each example, as if the model had written it."""
    encoded = [answer_tokens(example, task.options, tokenizer) for example in examples]
    choices = choose_options(engine, [prompt for prompt, _ in encoded],
                             [options for _, options in encoded])
    return [Completion(options[choice.best], task.options[choice.best])
            for (_, options), choice in zip(encoded, choices, strict=True)]


def _trie(options: Sequence[Sequence[int]]) -> dict[Ids, list[int]]:
    """What options begin with → the tokens with which some of them go on from there."""
    trie: dict[Ids, list[int]] = {}
    for option in options:
        for i, token in enumerate(option):
            continuations = trie.setdefault(tuple(option[:i]), [])
            if token not in continuations:
                continuations.append(token)
    for option in options:
        if tuple(option) in trie or not option:
            raise UserError(f"option {list(options).index(option) + 1} of {len(options)} is the "
                            "beginning of another one in this tokenizer, so it would always be "
                            "chosen: word the answers differently")
    return trie
