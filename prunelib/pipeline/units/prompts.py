"""Which examples of a task a unit is about, as it travels to workers, and their prompts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prunelib.engines.base import Prompt
from prunelib.engines.limits import check_scorable, model_limits
from prunelib.errors import UnitError, UserError
from prunelib.heads.labelled import LabelledPrompt, encode_labelled
from prunelib.models import ModelInfo
from prunelib.models.loading import load_tokenizer
from prunelib.recipe.recipe import Recipe
from prunelib.tasks import (
    CHAT,
    ChatFormat,
    Example,
    Split,
    Task,
    Written,
    draw,
    draw_labelled,
    get_task,
    relabelled,
    stored_task,
)
from prunelib.tasks.tokenization import Encoded, answer_room, encode, token_ids


@dataclass(frozen=True)
class TaskRef:
    """A task by name and content."""

    name: str
    digest: str
    #: The data set or file of pairs that it is (JSON), or nothing for a bundled task; its content
    #: is in the digest.
    dataset: str = field(default="", compare=False, repr=False)

    def load(self) -> Task:
        """The task itself. Raises :class:`UnitError` if its content is another one here."""
        task = stored_task(self.dataset) if self.dataset else get_task(self.name)
        if task.digest != self.digest:
            raise UnitError(f"task '{self.name}' has other content on this node")
        return task


@dataclass(frozen=True)
class PromptsRef:
    """Which examples of a task: draws ``indices`` of the seeded sequence of a split."""

    task: TaskRef
    split: Split
    shots: int
    seed: int
    indices: tuple[int, ...]
    #: As the recipe names it, ``own`` for that of the task, or the model's chat template.
    format: Written
    #: Where demonstrations come from, unless from the same split.
    demonstrations: tuple[Split, ...] = ()

    def draw(self) -> tuple[Task, list[Example]]:
        """The task and the examples that are meant."""
        task = self.task.load()
        drawn = {example.example: example for example in draw(
            task, split=self.split, shots=self.shots, seed=self.seed, count=max(self.indices) + 1,
            prompt_format=self.format, demonstrations=self.demonstrations)}
        return task, [drawn[i] for i in self.indices]

    @functools.cached_property
    def queries(self) -> list[str]:
        """What each example asks."""
        return [example.query for example in self.draw()[1]]

    def encode(self, tokenizer: Any) -> list[Encoded]:
        """The examples as token ids, with their answers.

        Raises :class:`UnitError` if the tokenizer merges a prompt's end with an answer.
        """
        return [encode(example, tokenizer) for example in self.draw()[1]]


def tokenized(task: Task, examples: Sequence[Example], tokenizer: Any) -> list[Prompt]:
    """Token ids of prompts, with room for the longest answer that occurs and what ends it."""
    room = answer_room(examples, task.options, tokenizer)
    return [Prompt(tuple(token_ids(e.prompt, tokenizer, e.templated)), room) for e in examples]


@dataclass(frozen=True)
class LabelledPromptsRef:
    """Prompts of a task whose two classes have other names, as many of every seed."""

    task: TaskRef
    labels: tuple[str, str]
    split: Split
    #: Demonstrations of each label.
    each: int
    seeds: tuple[int, ...]
    count: int
    format: str
    #: Seed and number of those that a model cannot be asked.
    left_out: tuple[tuple[int, int], ...] = ()

    @functools.cached_property
    def relabelled(self) -> Task:
        """The task with its new labels."""
        return relabelled(self.task.load(), self.labels)

    def draw(self, reverse: bool = False) -> list[Example]:
        """The prompts, seed after seed; ``reverse``: the two labels change places."""
        return [example for seed in self.seeds for example in draw_labelled(
            self.relabelled, split=self.split, counts=(self.each, self.each), seed=seed,
            count=self.count, reverse=reverse, prompt_format=self.format)
            if (seed, example.example) not in self.left_out]

    def encode(self, info: ModelInfo, reverse: bool = False) -> list[LabelledPrompt]:
        """The prompts as token ids; :class:`UnitError` if one is too long for the model."""
        found = encode_labelled(self.relabelled, self.draw(reverse), load_tokenizer(info))
        check_scorable([p.ids for p in found], [p.labels for p in found], *model_limits(info))
        return found


def written(recipe: Recipe, info: ModelInfo, split: Split) -> Written:
    """How a model's prompts of a split are written, unless their task has a format of its own.

    Raises :class:`~prunelib.errors.UserError` if that is a chat and the model has no template for
    it.
    """
    asked = recipe.format_on(split)
    return chat_format(info, recipe.system) if asked == CHAT else asked


@functools.cache
def chat_format(info: ModelInfo, system: str | None) -> ChatFormat:
    """How a model's own template writes chats. Raises ``UserError`` if it cannot."""
    try:
        return ChatFormat.of(load_tokenizer(info), system)
    except UserError as error:
        raise UserError(f"format chat: model '{info.id}': {error}") from error
