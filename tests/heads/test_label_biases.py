from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from prunelib.heads.label_bias import majority_label_bias, measure_biases, recency_bias
from prunelib.heads.labelled import LabelledPrompt, accuracies, encode_labelled, label_logprobs
from prunelib.models import ModelInfo, load
from prunelib.tasks import draw_labelled, get_task, orders, relabelled


def test_biases_of_hand_made_tables() -> None:
    assert majority_label_bias(0.8, [0.7, 0.95]) == pytest.approx((0.1 + 0.15) / 2)
    assert majority_label_bias(0.5, [0.5, 0.5]) == 0
    assert recency_bias([0.9, 0.5]) == pytest.approx(0.2)
    assert recency_bias([0.4, 0.4, 0.7]) == pytest.approx((2 * 0.1**2 / 3 + 0.2**2 / 3) ** 0.5)


def test_measured_biases_are_those_of_their_prompts(families: Callable[[str], ModelInfo]) -> None:
    loaded = load(families("llama"))
    task = relabelled(get_task("upper_or_lower"))
    seen: list[tuple[int, ...]] = []

    @contextmanager
    def watch(some: Sequence[LabelledPrompt]) -> Iterator[None]:
        seen.extend(prompt.shown for prompt in some)
        yield

    found = measure_biases(loaded, task, split="report", each=2, seed=3, count=10, order_count=3,
                           within=watch)
    counts = [(row.count(0), row.count(1)) for row in seen]
    assert counts == [(2, 2)] * 10 + [(1, 2)] * 10 + [(2, 1)] * 10 + [(2, 2)] * 30
    assert set(seen[30:40]) == {(1, 1, 0, 0)} and set(seen[40:50]) == {(0, 0, 1, 1)}
    examples = draw_labelled(task, split="report", counts=(2, 2), seed=3, count=10,
                             order=orders(4, 3, 3)[2])
    prompts = encode_labelled(task, examples, loaded.tokenizer)
    assert found.by_order[2] == accuracies(prompts, label_logprobs(loaded, prompts)).mean()
    assert found.recency == recency_bias(found.by_order)
    assert found.majority == majority_label_bias(found.balanced, found.minus_one)
