"""k-shot prompts: which demonstrations go into which example, and how they are written."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from prunelib.errors import UserError
from prunelib.identity import digest, seed_of
from prunelib.tasks.base import Pair, Pool, PromptFormat, Task
from prunelib.tasks.chat import ChatFormat
from prunelib.tasks.choices import Choices
from prunelib.vocabulary import Split

FormatName = Literal["arrow", "example", "comma", "colon"]
#: The most demonstrations a prompt can have; drawing always draws this many and cuts, so that
#: the demonstrations of k shots are the first k of those of k+1 shots (but for the place of the
#: query's own pair, where a task has it in the prompt).
MAX_SHOTS = 16


#: ``arrow`` is the default; ``example`` is that of Hendel et al.; ``comma`` the one printed in
#: the introduction of the copy-bias paper (formulas.md §1.1, §1.5), ``colon`` that of the paper on
#: in-context heads (§4.1).
FORMATS: dict[str, PromptFormat] = {
    "arrow": PromptFormat("", "->", "", "\n"),
    "example": PromptFormat("example:", "->", "", "\n"),
    "comma": PromptFormat("", " ->", " ", ", "),
    "colon": PromptFormat("", " :", " ", " "),
}


@dataclass(frozen=True)
class Example:
    """One rendered k-shot prompt, with all that is needed to score and to trace it."""

    task: str
    split: Split
    shots: int
    seed: int
    example: int
    query: str
    gold: str
    demonstrations: tuple[Pair, ...]
    prompt: str
    lead: str
    separator: str
    #: Whether a chat template wrote the prompt, and with it all special tokens.
    templated: bool = False
    #: The question's own choices, if it has any, and the prompt of each.
    choices: Choices = ()
    choice_prompts: tuple[str, ...] = ()

    @property
    def answers(self) -> tuple[str, ...]:
        """The demonstrations' answers, in order."""
        return tuple(y for _, y in self.demonstrations)

    @property
    def digest(self) -> str:
        """Digest of what an engine sees and what it is scored against."""
        return digest("example", [self.prompt, self.gold, list(self.answers)])


#: How prompts are written: the name of one of :data:`FORMATS`, ``own`` for that of a task that has
#: one, or a chat template.
Written = str | ChatFormat


def format_of(task: Task, written: Written) -> PromptFormat | ChatFormat:
    """How the prompts of a task are written: its own format comes first, but for a chat."""
    if isinstance(written, ChatFormat):
        return written
    return task.format or FORMATS[written]


def draw(
    task: Task,
    *,
    split: Split,
    shots: int,
    seed: int,
    count: int,
    prompt_format: Written = "arrow",
    demonstrations: tuple[Split, ...] = (),
) -> list[Example]:
    """Draw ``count`` examples, and leave out those that were drawn before.

    Example ``i`` depends on (task, split, seed, i) alone. Queries are the different questions
    (inputs, with their choices if they have some) of the split in a seeded permutation, which
    starts again when it is used up: without demonstrations there are as many examples as
    questions at most. Demonstrations never show the query's own input,
    unless the task wants its pair there. They come from the same split, or from the splits
    ``demonstrations``. A mixture takes its parts' prompts in turn.

    Raises :class:`UserError` if the splits are too small for ``shots``, or a data set's split for
    ``count``.
    """
    if not 0 <= shots <= MAX_SHOTS:
        raise UserError(f"shots must be between 0 and {MAX_SHOTS}, not {shots}")
    task.check(split, shots, count, demonstrations)
    if task.parts:
        number = len(task.parts)
        drawn = sorted((replace(example, task=task.name, example=example.example * number + place)
                        for place, part in enumerate(task.parts)
                        for example in draw(part, split=split, shots=shots, seed=seed,
                                            count=-(-count // number), prompt_format=prompt_format,
                                            demonstrations=demonstrations)),
                       key=lambda example: example.example)
        drawn = [example for example in drawn if example.example < count]
    else:
        asked = task.pool(split)
        order = list(asked.questions)
        random.Random(seed_of("queries", task.name, split, seed)).shuffle(order)  # noqa: S311
        drawn = [_example(task, asked, order[i % len(order)], split, shots, seed, i,
                          format_of(task, prompt_format), task.pool(*(demonstrations or (split,))))
                 for i in range(count if shots else min(count, len(order)))]
    found: dict[tuple[str, Choices, tuple[Pair, ...]], Example] = {}
    for example in drawn:  # two parts of a mixture may have the same input, too
        found.setdefault((example.query, example.choices, example.demonstrations), example)
    return list(found.values())


def numbers(task: Task, *, split: Split, shots: int, seed: int, count: int,
            demonstrations: tuple[Split, ...] = ()) -> list[int]:
    """Which of the first ``count`` draws are examples: those that were not drawn before."""
    if not task.parts and count <= (different := task.queries(split)):
        return list(range(min(count, different)))
    return [example.example for example in draw(
        task, split=split, shots=shots, seed=seed, count=count, demonstrations=demonstrations)]


def _example(
    task: Task,
    asked: Pool,
    place: int,
    split: Split,
    shots: int,
    seed: int,
    index: int,
    fmt: PromptFormat | ChatFormat,
    pool: Pool,
) -> Example:
    queried = query, gold = asked.pairs[place]
    rng = random.Random(seed_of("demonstrations", task.name, split, seed, index))  # noqa: S311
    hidden = pool.hidden(queried, task) if shots else []
    others = range(len(pool.pairs) - len(hidden) if shots else 0)
    chosen = [pool.pairs[_place(i, hidden)]
              for i in rng.sample(others, min(MAX_SHOTS, len(others)))[:shots]]
    if task.query_in_prompt:
        chosen[rng.randrange(shots)] = queried
    demonstrations = tuple(chosen)
    choices = asked.choices[place] if asked.choices else ()
    return Example(
        task=task.name,
        split=split,
        shots=shots,
        seed=seed,
        example=index,
        query=query,
        gold=gold,
        demonstrations=demonstrations,
        prompt=fmt.render(demonstrations, query),
        lead=fmt.lead,
        separator=fmt.separator,
        templated=isinstance(fmt, ChatFormat),
        choices=choices,
        choice_prompts=tuple(fmt.render(demonstrations, c.query) for c in choices),
    )


def _place(i: int, hidden: Sequence[int]) -> int:
    """The ``i``-th place that is not among the ``hidden`` ones, which ascend."""
    for place in hidden:
        if place > i:
            break
        i += 1
    return i
