"""k-shot prompts: which demonstrations go into which example, and how they are written."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal

from prunelib.errors import UserError
from prunelib.identity import digest, seed_of
from prunelib.tasks.base import Pair, PromptFormat, Split, Task

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

    @property
    def answers(self) -> tuple[str, ...]:
        """The demonstrations' answers, in order."""
        return tuple(y for _, y in self.demonstrations)

    @property
    def digest(self) -> str:
        """Digest of what an engine sees and what it is scored against."""
        return digest("example", [self.prompt, self.gold, list(self.answers)])


def draw(
    task: Task,
    *,
    split: Split,
    shots: int,
    seed: int,
    count: int,
    prompt_format: str = "arrow",
) -> list[Example]:
    """Draw ``count`` examples. Example ``i`` depends on (task, split, seed, i) alone.

    Queries go through a seeded permutation of the split and start again when it is used up
    (with other demonstrations), so small tasks are covered evenly. A task with a format of its
    own is written in that, whatever ``prompt_format`` says; a mixture takes its parts' prompts in
    turn. Raises :class:`UserError` if the
    split is too small for ``shots``, or a data set's split for ``count``.
    """
    if not 0 <= shots <= MAX_SHOTS:
        raise UserError(f"shots must be between 0 and {MAX_SHOTS}, not {shots}")
    task.check(split, shots, count)
    if task.parts:
        of_parts = [draw(part, split=split, shots=shots, seed=seed,
                         count=-(-count // len(task.parts)), prompt_format=prompt_format)
                    for part in task.parts]
        return [replace(of_parts[i % len(of_parts)][i // len(of_parts)], task=task.name, example=i)
                for i in range(count)]
    pairs = task.split(split)
    order = list(range(len(pairs)))
    random.Random(seed_of("queries", task.name, split, seed)).shuffle(order)  # noqa: S311
    return [
        _example(task, pairs, split, shots, seed, i, order[i % len(order)], prompt_format)
        for i in range(count)
    ]


def _example(
    task: Task,
    pairs: tuple[Pair, ...],
    split: Split,
    shots: int,
    seed: int,
    index: int,
    position: int,
    prompt_format: str,
) -> Example:
    fmt = task.format or FORMATS[prompt_format]
    query, gold = pairs[position]
    rng = random.Random(seed_of("demonstrations", task.name, split, seed, index))  # noqa: S311
    others = [*range(position), *range(position + 1, len(pairs))] if shots else []
    if task.gold_not_in_prompt:
        others = [i for i in others if pairs[i][1] != gold]
    chosen = rng.sample(others, min(MAX_SHOTS, len(others)))[:shots]
    if task.query_in_prompt:
        chosen[rng.randrange(shots)] = position
    demonstrations = tuple(pairs[i] for i in chosen)
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
    )
