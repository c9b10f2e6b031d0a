from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from prunelib.heads.label_bias import ask_conditions
from prunelib.heads.labelled import LabelledPrompt, encode_labelled, label_logprobs
from prunelib.models import ModelInfo, load
from prunelib.tasks import draw_labelled, get_task, orders, relabelled


def test_conditions_ask_the_same_queries(families: Callable[[str], ModelInfo]) -> None:
    loaded = load(families("llama"))
    task = relabelled(get_task("upper_or_lower"))
    seen: list[tuple[int, ...]] = []

    @contextmanager
    def watch(some: Sequence[LabelledPrompt]) -> Iterator[None]:
        seen.extend(prompt.shown for prompt in some)
        yield

    found = list(ask_conditions(loaded, task, split="report", each=2, seed=3, count=10,
                                order_count=3, within=watch))
    assert [condition.name for condition in found] == [
        "balanced", "first", "second", "order", "order", "order"]
    for condition in found:
        assert [e.query for e in condition.examples] == [e.query for e in found[0].examples]
        assert [p.query for p in condition.prompts] == [e.query for e in condition.examples]
    counts = [(row.count(0), row.count(1)) for row in seen]
    assert counts == [(2, 2)] * 10 + [(1, 2)] * 10 + [(2, 1)] * 10 + [(2, 2)] * 30
    assert set(seen[30:40]) == {(1, 1, 0, 0)} and set(seen[40:50]) == {(0, 0, 1, 1)}
    order = orders(4, 3, 3)[2]
    examples = draw_labelled(task, split="report", counts=(2, 2), seed=3, count=10, order=order)
    prompts = encode_labelled(task, examples, loaded.tokenizer)
    assert found[5].order == order and found[5].prompts == prompts
    assert found[5].logprobs.tobytes() == label_logprobs(loaded, prompts).tobytes()
