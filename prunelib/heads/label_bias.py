"""Answers from which majority-label bias and recency bias follow (formulas.md §4.4).

The measures themselves, with what noise alone would give, are in
:mod:`prunelib.scoring.conditions`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from prunelib.heads.labelled import (
    LABELLED_ROWS,
    Array,
    LabelledPrompt,
    encode_labelled,
    label_logprobs,
)
from prunelib.models import Loaded
from prunelib.tasks import Example, Split, Task, draw_labelled, orders


@dataclass(frozen=True)
class Condition:
    """Answers to the same queries under one condition of their demonstrations.

    Attributes:
        name: ``balanced``: equally many demonstrations of both labels, each prompt in a random
            order; ``first`` or ``second``: otherwise the same prompts without one demonstration of
            that label; ``order``: balanced, in one order that all prompts share.
        order: that order, or ``None``.
        examples: the prompts.
        prompts: the same, as token ids.
        logprobs: of both labels, ``[prompts, 2]``, natural.
    """

    name: str
    order: tuple[int, ...] | None
    examples: list[Example]
    prompts: list[LabelledPrompt]
    logprobs: Array


def ask_conditions(
    loaded: Loaded,
    task: Task,
    *,
    split: Split,
    each: int,
    seed: int,
    count: int,
    order_count: int = 6,
    prompt_format: str = "colon",
    within: Callable[[Sequence[LabelledPrompt]], AbstractContextManager[object]] | None = None,
    rows: int = LABELLED_ROWS,
    left_out: Collection[int] = (),
) -> Iterator[Condition]:
    """Ask a model the same queries of a relabelled task under every condition.

    The orders are grouped, reversed, then random ones.

    Args:
        loaded: the model.
        task: from :func:`~prunelib.tasks.relabelled`.
        split: where queries and demonstrations come from.
        each: demonstrations of each label.
        seed: of the prompts and of the random orders.
        count: prompts of each condition, half of them of each label.
        order_count: orders that are compared.
        prompt_format: where the task has none of its own.
        within: a mitigation, as for :func:`~prunelib.heads.labelled.label_logprobs`.
        rows: prompts of a batch.
        left_out: numbers of prompts that are not asked.

    Raises:
        UserError: the split is too small, or there are fewer orders.
    """
    conditions: list[tuple[str, tuple[int, int], tuple[int, ...] | None]] = [
        ("balanced", (each, each), None),
        ("first", (each - 1, each), None),
        ("second", (each, each - 1), None),
        *(("order", (each, each), order) for order in orders(2 * each, order_count, seed)),
    ]
    for name, counts, order in conditions:
        examples = [example for example in draw_labelled(
            task, split=split, counts=counts, seed=seed, count=count,
            order="shuffled" if order is None else order, prompt_format=prompt_format)
            if example.example not in left_out]
        prompts = encode_labelled(task, examples, loaded.tokenizer)
        yield Condition(name, order, examples, prompts,
                        label_logprobs(loaded, prompts, within, rows))
