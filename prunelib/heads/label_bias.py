"""Majority-label bias and recency bias as measured quantities (formulas.md §4.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from prunelib.heads.labelled import (
    LABELLED_ROWS,
    LabelledPrompt,
    accuracies,
    encode_labelled,
    label_logprobs,
)
from prunelib.models import Loaded
from prunelib.tasks import Split, Task, draw_labelled, orders


def majority_label_bias(balanced: float, minus_one: Sequence[float]) -> float:
    """Mean over labels of |accuracy with balanced demonstrations - with one of the label fewer|.

    The paper speaks of a fluctuation without a formula; this is the project's (formulas.md §4.4).
    """
    return float(np.mean(np.abs(balanced - np.asarray(minus_one, float))))


def recency_bias(by_order: Sequence[float]) -> float:
    """Standard deviation of accuracy over orders of the demonstrations (formulas.md §4.4).

    Of these orders, not an estimate of others: the sum of squares is divided by their number.
    """
    return float(np.std(np.asarray(by_order, float)))


@dataclass(frozen=True)
class Biases:
    """Accuracies from which both biases follow.

    Attributes:
        balanced: with equally many demonstrations of both labels, each prompt in a random order.
        minus_one: without one demonstration of the first, of the second label; otherwise the
            same prompts.
        by_order: balanced, in each of some orders that all prompts share: grouped, reversed, then
            random ones.
    """

    balanced: float
    minus_one: tuple[float, float]
    by_order: tuple[float, ...]

    @property
    def majority(self) -> float:
        """:func:`majority_label_bias`."""
        return majority_label_bias(self.balanced, self.minus_one)

    @property
    def recency(self) -> float:
        """:func:`recency_bias`."""
        return recency_bias(self.by_order)


def measure_biases(
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
) -> Biases:
    """Measure both biases of a model on a relabelled task.

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

    Raises:
        UserError: the split is too small, or there are fewer orders.
    """
    def accuracy(counts: tuple[int, int], order: Sequence[int] | None = None) -> float:
        examples = draw_labelled(task, split=split, counts=counts, seed=seed, count=count,
                                 order="shuffled" if order is None else order,
                                 prompt_format=prompt_format)
        prompts = encode_labelled(task, examples, loaded.tokenizer)
        return float(accuracies(prompts, label_logprobs(loaded, prompts, within,
                                                        rows)).mean())

    return Biases(
        balanced=accuracy((each, each)),
        minus_one=(accuracy((each - 1, each)), accuracy((each, each - 1))),
        by_order=tuple(accuracy((each, each), order)
                       for order in orders(2 * each, order_count, seed)),
    )
