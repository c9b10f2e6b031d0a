"""Answers chosen among options: the one to which the model gives the highest probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from prunelib.engines.base import Completion, Engine, Prompt
from prunelib.engines.limits import prompt_error
from prunelib.errors import UnitError, UserError
from prunelib.tasks import ChoiceScoring, Example, Task
from prunelib.tasks.tokenization import answer_tokens, token_ids

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
    answers = engine.logprobs([[*prompts[row], *begun] for row, begun in places], nexts,
                              [len(begun) for _, begun in places])
    found = {(*place, token): logprob
             for place, tokens, logprobs in zip(places, nexts, answers, strict=True)
             for token, logprob in zip(tokens, logprobs, strict=True)}
    choices = []
    for row, some in enumerate(options):
        scores = tuple(sum(found[row, tuple(option[:i]), token] for i, token in enumerate(option))
                       for option in some)
        choices.append(Choice(scores.index(max(scores)), scores))
    return choices


def answers_of(engine: Engine, task: Task, examples: Sequence[Example], tokenizer: Any,
               limits: tuple[int, int]) -> list[Completion]:
    """The most probable of a task's options for each example, as if the model had written it.

    ``limits`` are those of :func:`~prunelib.engines.limits.model_limits`. An example of which one
    option cannot be scored has an error.
    """
    done: dict[int, Completion] = {}
    encoded: dict[int, tuple[Ids, list[Ids]]] = {}
    for i, example in enumerate(examples):
        try:
            prompt, options = answer_tokens(example, task.options, tokenizer)
            error = prompt_error(Prompt(prompt, max(map(len, options))), *limits)
        except UnitError as caught:
            error = str(caught)
        if error is None:
            encoded[i] = prompt, options
        else:
            done[i] = Completion((), "", error)
    choices = choose_options(engine, [prompt for prompt, _ in encoded.values()],
                             [options for _, options in encoded.values()]) if encoded else []
    for (i, (_, options)), choice in zip(encoded.items(), choices, strict=True):
        done[i] = Completion(options[choice.best], task.options[choice.best])
    return [done[i] for i in range(len(examples))]


@dataclass(frozen=True)
class Chosen:
    """What a model chose among the choices of one question.

    Attributes:
        completion: the text of the choice, as if the model had written it.
        likelihoods: natural log-likelihood of each choice's continuation, summed over its tokens.
        right: whether the choice is a right one.
        margin: score of the best right choice minus that of the best wrong one; where there is
            one answer alone, its log-likelihood. 0 after an error, whatever the intervention.
    """

    completion: Completion
    likelihoods: tuple[float, ...]
    right: bool
    margin: float = 0.0


def choose_own(engine: Engine, scoring: ChoiceScoring, examples: Sequence[Example],
               tokenizer: Any) -> list[Chosen]:
    """What the engine's live model chooses among each example's own choices.

    The choice with the highest log-likelihood, which is divided by what ``scoring`` says; the
    first of equals. An example of which one choice cannot be scored has an error.
    """
    encoded = [_own_tokens(example, tokenizer) for example in examples]
    flat = engine.force([prompt for some in encoded for prompt, _ in some],
                        [continuation for some in encoded for _, continuation in some])
    chosen, start = [], 0
    for example, some in zip(examples, encoded, strict=True):
        found, start = flat[start : start + len(some)], start + len(some)
        error = next((forced.error for forced in found if forced.error is not None), None)
        if error is not None:
            chosen.append(Chosen(Completion((), "", error), (), False))
            continue
        likelihoods = tuple(sum(forced.logprobs) for forced in found)
        if scoring == "greedy_match":
            tokens, best = some[0][1], found[0].best
            text = str(tokenizer.decode(best, skip_special_tokens=True))
            chosen.append(Chosen(Completion(best, text), likelihoods, best == tokens,
                                 likelihoods[0]))
            continue
        scores = [value / choice.length(scoring)
                  for value, choice in zip(likelihoods, example.choices, strict=True)]
        best_choice = scores.index(max(scores))
        choice = example.choices[best_choice]
        chosen.append(Chosen(Completion(some[best_choice][1], choice.text), likelihoods,
                             choice.right, _margin(example, scores)))
    return chosen


def _margin(example: Example, scores: Sequence[float]) -> float:
    """How far the best right choice is above the best wrong one; 0 if there is none of a kind."""
    right, wrong = ([score for score, choice in zip(scores, example.choices, strict=True)
                     if choice.right is kind] for kind in (True, False))
    return max(right) - max(wrong) if right and wrong else 0.0


def _own_tokens(example: Example, tokenizer: Any) -> list[tuple[Ids, Ids]]:
    """Token ids of each choice's prompt and continuation.

    Blanks at a prompt's end belong to the continuation. Where a tokenizer merges across the
    border, the continuation begins with the first token that differs, for all choices after the
    same prompt alike, so that they stay comparable.
    """
    pairs = []
    for prompt, choice in zip(example.choice_prompts, example.choices, strict=True):
        before = prompt if example.templated else prompt.rstrip()
        pairs.append((before, prompt + example.lead + choice.continuation))
    texts = dict.fromkeys(text for pair in pairs for text in pair)
    ids = {text: token_ids(text, tokenizer, example.templated) for text in texts}
    borders: dict[str, int] = {}
    for before, whole in pairs:
        border = sum(1 for _ in takewhile(lambda two: two[0] == two[1],
                                          zip(ids[before], ids[whole], strict=False)))
        borders[before] = min(border, borders.get(before, border))
    return [(tuple(ids[whole][: borders[before]]), tuple(ids[whole][borders[before]:]))
            for before, whole in pairs]


def check_distinct(options: Sequence[Sequence[int]], names: Sequence[str] = ()) -> None:
    """Raise :class:`UserError` if one of some options, as token ids, begins another one."""
    for i, option in enumerate(options):
        for j, other in enumerate(options):
            if i != j and tuple(other[: len(option)]) == tuple(option):
                one, longer = ((f"'{names[k]}'" if names else f"{k + 1} of {len(options)}")
                               for k in (i, j))
                raise UserError(f"option {one} is the beginning of option {longer} in this "
                                "tokenizer, so it would always be chosen: word the answers "
                                "differently")


def _trie(options: Sequence[Sequence[int]]) -> dict[Ids, list[int]]:
    """What options begin with → the tokens with which some of them go on from there."""
    trie: dict[Ids, list[int]] = {}
    for option in options:
        for i, token in enumerate(option):
            continuations = trie.setdefault(tuple(option[:i]), [])
            if token not in continuations:
                continuations.append(token)
    if any(tuple(option) in trie for option in options):
        check_distinct(options)
    return trie
