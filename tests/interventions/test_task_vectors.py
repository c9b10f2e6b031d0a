"""Task vectors against hidden states that transformers returns, and on a hand-made task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_families import FAMILIES
from tiny_llama import Oracle

from prunelib.engines.limits import stop_token_ids
from prunelib.errors import UnitError, UserError
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.interventions.task_vectors import (
    Reading,
    best_layer,
    dummy_inputs,
    last_streams,
    task_vector_answers,
    written,
)
from prunelib.models import Loaded, ModelInfo, describe, load
from prunelib.tasks import FORMATS, Example, Task, draw, get_task

PROMPTS = ["ab->", "cde->cd\nxyz->", "q->"]
TASK = get_task("list_first")
DRAWN: dict[str, Any] = {"split": "search", "shots": 2, "seed": 0, "count": 5}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, families: Callable[[str], ModelInfo]) -> Loaded:
    return load(families(request.param))


def reading(loaded: Loaded, max_tokens: int = 3, rows: int = 128) -> Reading:
    return Reading(max_tokens, tuple(stop_token_ids(loaded.tokenizer, loaded.info.ends)), rows)


def ids(loaded: Loaded, prompts: list[str]) -> list[list[int]]:
    return [loaded.tokenizer(prompt)["input_ids"] for prompt in prompts]


def ids_of(loaded: Loaded, prompt: str) -> torch.Tensor:
    return torch.tensor([loaded.tokenizer(prompt)["input_ids"]])


@torch.no_grad()
def states(model: Any, loaded: Loaded, prompt: str) -> list[torch.Tensor]:
    """What transformers says the layers give at the last position.

    Not the last layer, which it shows after the final norm. A Mamba's embeddings are not shown.
    """
    out = model(ids_of(loaded, prompt), output_hidden_states=True, use_cache=False)
    first = 0 if loaded.adapter.site == "mixer_in" else 1
    return [state[0, -1] for state in out.hidden_states[first:-1]]


def test_streams_are_the_hidden_states_of_transformers(family: Loaded) -> None:
    found = last_streams(family, ids(family, PROMPTS), rows=2)
    assert found.shape[:2] == (3, 2)
    for row, prompt in zip(found, PROMPTS, strict=True):
        for layer, state in enumerate(states(family.model, family, prompt)):
            torch.testing.assert_close(row[layer], state, rtol=0, atol=2e-5)
        if family.info.model_type == "llama":
            with torch.no_grad():
                final = family.model.lm_head(family.model.model.norm(row[-1]))
                whole = family.model(ids_of(family, prompt)).logits[0, -1]
            torch.testing.assert_close(final, whole, rtol=0, atol=2e-5)


@torch.no_grad()
def test_its_own_hidden_state_changes_no_bit_and_another_one_does(family: Loaded) -> None:
    prompt = ids_of(family, PROMPTS[1])
    before = family.model(prompt, use_cache=False).logits
    other = last_streams(family, ids(family, PROMPTS[:1]))
    for layer in (0, 1):
        own = last_streams(family, ids(family, PROMPTS[1:2]))[:, layer]
        with written(family, {layer: own}):
            assert torch.equal(family.model(prompt, use_cache=False).logits, before)
        with written(family, {layer: other[:, layer]}):
            changed = family.model(prompt, use_cache=False).logits
            again = family.model(prompt, use_cache=False).logits
        assert torch.equal(changed[:, :-1], before[:, :-1])
        assert (changed - before)[:, -1].abs().max() > 1e-3
        assert torch.equal(again, before)  # the first pass only


@torch.no_grad()
def test_the_last_layers_state_of_another_prompt_gives_its_next_token(family: Loaded) -> None:
    """Nothing but the final norm and the head comes after, so the logits are the other prompt's."""
    with written(family, {1: last_streams(family, ids(family, PROMPTS[:1]))[:, 1]}):
        found = family.model(ids_of(family, PROMPTS[1]), use_cache=False).logits[0, -1]
    expected = family.model(ids_of(family, PROMPTS[0]), use_cache=False).logits[0, -1]
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def brute_force(loaded: Loaded, example: Example, ablation: Ablation, layer: int) -> str:
    """First token with the task vector: zeroed weights, one prompt at a time, one layer's hook."""
    model = Oracle(loaded.info).ablated(ablation)
    render = FORMATS["arrow"].render
    vectors = [states(model, loaded, render(example.demonstrations, x))[layer]
               for x in dummy_inputs(TASK, example)]
    vector = torch.stack(vectors).mean(0)

    def hook(_: Any, __: Any, output: Any) -> Any:
        stream = output[0] if isinstance(output, tuple) else output
        stream[0, -1] = vector
        return output

    loaded.adapter.layers(model)[layer].register_forward_hook(hook)
    with torch.no_grad():
        token = model(ids_of(loaded, render((), example.query)), use_cache=False).logits[0, -1]
    return text_of(loaded, int(token.argmax()))


def text_of(loaded: Loaded, token: int) -> str:
    """The answer that consists of one token."""
    stops = stop_token_ids(loaded.tokenizer, loaded.info.ends)
    return "" if token in stops else loaded.tokenizer.decode([token], skip_special_tokens=True)


def some(info: ModelInfo) -> Ablation:
    return Ablation.of_layer(0, range(0, info.width, 3), info.site)


def test_answers_are_those_of_brute_force_before_and_after_pruning(family: Loaded) -> None:
    said = []
    for ablation in (BASELINE, some(family.info)):
        found = task_vector_answers(family, TASK, reading(family, 1), **DRAWN, ablation=ablation)
        expected = tuple(brute_force(family, e, ablation, 0) for e in found.examples)
        assert found.task_vector[0] == expected
        assert set(found.task_vector) == {0, 1}
        said.append((found.zero_shot, found.icl, *found.task_vector.values()))
    assert said[0] != said[1] or family.adapter.site == "mixer_in"  # one token, whatever is asked


def test_no_hook_survives(info: ModelInfo) -> None:
    loaded = load(info)
    task_vector_answers(loaded, TASK, reading(loaded), **DRAWN)
    with pytest.raises(RuntimeError), written(loaded, {0: torch.zeros(2, 3)}):
        loaded.model(ids_of(loaded, PROMPTS[0]))
    for module in loaded.model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_bare_and_demonstrated_prompts_are_answered_as_without_vectors(
    info: ModelInfo, oracle: Oracle
) -> None:
    loaded = load(info)
    ablation = some(info)
    found = task_vector_answers(loaded, TASK, reading(loaded, 3, rows=2), **DRAWN,
                                ablation=ablation)
    stops = stop_token_ids(loaded.tokenizer, loaded.info.ends)
    for example, bare, full in zip(found.examples, found.zero_shot, found.icl, strict=True):
        for prompt, answer in ((f"{example.query}->", bare), (example.prompt, full)):
            ids = oracle.greedy(ablation, ids_of(loaded, prompt)[0].tolist(), 3, stops)
            assert answer == loaded.tokenizer.decode(ids, skip_special_tokens=True)


def test_how_many_rows_a_pass_has_does_not_matter(info: ModelInfo) -> None:
    loaded = load(info)
    few, many = (task_vector_answers(loaded, TASK, reading(loaded, 3, rows), **DRAWN)
                 for rows in (2, 128))
    assert few == many
    one = task_vector_answers(loaded, TASK, reading(loaded), **DRAWN, layers=[1])
    assert one.task_vector == {1: many.task_vector[1]}


def test_vectors_of_other_prompts_leave_the_query_out(info: ModelInfo) -> None:
    """A task so small that prompts share inputs, but not all of them."""
    loaded = load(info)
    task = get_task("int_to_char")
    drawn = DRAWN | {"count": 8, "shots": 1}
    found = task_vector_answers(loaded, task, reading(loaded, 1), **drawn, context="other")
    render, used = FORMATS["arrow"].render, []
    for i, example in enumerate(found.examples):
        vectors = []
        for other in found.examples:
            inputs = [*dummy_inputs(task, other), other.query, *(x for x, _ in
                                                                 other.demonstrations)]
            if example.query not in inputs:
                vectors += [last_streams(loaded, ids(loaded, [render(other.demonstrations, x)]))[0]
                            for x in inputs[:2]]
        mean = torch.stack(vectors).mean(0)
        used.append(len(vectors))
        for layer in (0, 1):
            with torch.no_grad(), written(loaded, {layer: mean[None, layer]}):
                logits = loaded.model(ids_of(loaded, f"{example.query}->"), use_cache=False).logits
            assert found.task_vector[layer][i] == text_of(loaded, int(logits[0, -1].argmax()))
    assert min(used) > 0 and len(set(used)) > 1


def test_dummies_are_other_inputs_and_depend_on_the_example_alone() -> None:
    examples = draw(TASK, split="report", shots=4, seed=0, count=30)
    for example in examples:
        dummies = dummy_inputs(TASK, example)
        inside = {example.query, *(x for x, _ in example.demonstrations)}
        assert len(set(dummies)) == 2 and not inside & set(dummies)
        assert dummies == dummy_inputs(TASK, example)
        assert set(dummies) <= {x for x, _ in TASK.split("report")}
    assert len({dummy_inputs(TASK, example) for example in examples}) > 25
    letters = get_task("to_upper")
    used_up = len(letters.split("search")) - 1
    (example,) = draw(letters, split="search", shots=used_up, seed=0, count=1)
    assert set(dummy_inputs(letters, example)) <= {x for x, _ in example.demonstrations}


def test_the_best_layer_is_the_first_of_the_best() -> None:
    assert best_layer({0: [True, False], 2: [True, True], 1: [True, True]}) == 1


def test_a_trained_model_reads_a_task_from_its_vector() -> None:
    """Without demonstrations the reference model cannot know that capitals are asked for."""
    loaded = load(describe("reference/llama"))
    task = get_task("to_upper")
    found = task_vector_answers(loaded, task, reading(loaded), **DRAWN | {"shots": 4, "count": 40})

    def right(answers: tuple[str, ...]) -> list[bool]:
        return [task.matches(a, e.gold) for a, e in zip(answers, found.examples, strict=True)]

    layers = {layer: right(answers) for layer, answers in found.task_vector.items()}
    chosen = layers[best_layer(layers)]
    assert sum(right(found.icl)) > 36
    assert sum(chosen) > sum(right(found.zero_shot)) + 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": [0, 7]}, "layer 7 is not in a model of 2 layers"),
        ({"ablation": Ablation.of_layer(9, [0])}, "is not in a model"),
        ({"context": "other", "count": 1}, "contains the query"),
        ({"shots": 17}, "shots must be"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, Any], message: str, info: ModelInfo) -> None:
    loaded = load(info)
    with pytest.raises(UserError, match=message):
        task_vector_answers(loaded, TASK, reading(loaded), **DRAWN | changes)
    two = Task("two", "test", (("a", "b"), ("c", "d"), ("e", "f")), "")
    with pytest.raises(UserError, match="too few pairs"):
        task_vector_answers(loaded, two, reading(loaded), split="report", shots=0, seed=0, count=1)


def test_a_prompt_that_does_not_fit_is_not_cut(info: ModelInfo) -> None:
    loaded = load(info)
    with pytest.raises(UnitError, match="301 tokens and 1 to come"):
        last_streams(loaded, ids(loaded, ["ab->", "a" * 300]))
