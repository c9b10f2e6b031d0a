"""Scores against brute force on real weight rows, against Captum, and on a hand-made copier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerIntegratedGradients
from tiny_families import FAMILIES

from prunelib.attribution import quadrature
from prunelib.attribution.integrated_gradients import (
    NodeGradients,
    block_gradients,
    layer_path,
    layer_scores,
)
from prunelib.attribution.objectives.base import Objective, make_objective
from prunelib.attribution.objectives.copy_shift import copy_shift
from prunelib.attribution.prefix_replay import clean_prefix, last_position_only, started_at
from prunelib.errors import UnitError
from prunelib.models import Loaded, ModelInfo, load
from prunelib.models.adapter import output_dim
from prunelib.models.mamba_scan import linear_scan
from prunelib.recipe.attribution import ObjectiveSpec
from prunelib.tasks import draw, get_task
from prunelib.tasks.tokenization import Encoded, encode, pad_left

LEVEL = 3  # 65 nodes
COPY_SHIFT = make_objective(ObjectiveSpec())


def prompts_of(loaded: Loaded, count: int = 4) -> list[Encoded]:
    examples = draw(get_task("vowel_counting"), split="attribute", shots=3, seed=0, count=count)
    return [encode(example, loaded.tokenizer) for example in examples]


def block(loaded: Loaded, layer: int, prompts: list[Encoded], level: int,
          objective: Objective = COPY_SHIFT) -> NodeGradients:
    """What one block adds at one level, along the default path."""
    return block_gradients(loaded, layer_path(loaded, layer), prompts, objective,
                           quadrature.new_nodes(level))[0]


def scores(loaded: Loaded, layer: int, prompts: list[Encoded], level: int = LEVEL) -> Any:
    parts = [block(loaded, layer, prompts, i)
             for i in range(level + 1)]
    return layer_scores([parts], level)


def brute_force(
    loaded: Loaded, layer: int, prompts: list[Encoded], level: int
) -> np.ndarray[Any, Any]:
    """Real weight rows scaled by α, the real weight gradient, one prompt and one α at a time."""
    projection = loaded.adapter.layers(loaded.model)[layer].get_submodule(
        loaded.adapter.hidden[0])
    weight: Any = projection.weight
    original = weight.data.clone()
    total = torch.zeros(loaded.info.width, dtype=torch.float64)
    nodes, weights = quadrature.nodes(level), quadrature.weights(level)
    weight.requires_grad_(True)
    try:
        for prompt in prompts:
            for alpha, share in zip(nodes, weights, strict=True):
                weight.data = original * alpha
                weight.grad = None
                logits = loaded.model(torch.tensor([prompt.prompt])).logits[:, -1]
                copy_shift(logits, [prompt]).sum().backward()
                total += share * (original * weight.grad).sum(1 - output_dim(projection))
    finally:
        weight.data = original
        weight.requires_grad_(False)
        weight.grad = None
    return (total / len(prompts)).numpy()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, families: Callable[[str], ModelInfo]) -> Loaded:
    """A tiny model of each family in float64."""
    return load(families(request.param), "float64")


def digits(loaded: Loaded, tolerance: float) -> float:
    """The tolerance, or what float32 leaves: transformers computes part of a Mamba in it."""
    return max(tolerance, 1e-6) if loaded.adapter.site == "mixer_in" else tolerance


def of_one_length(loaded: Loaded, count: int) -> list[Encoded]:
    """Prompts that need no padding: BLOOM in float64 turns padding into NaN (float32 does not)."""
    lengths: dict[int, list[Encoded]] = {}
    for prompt in prompts_of(loaded, 40):
        lengths.setdefault(len(prompt.prompt), []).append(prompt)
    return max(lengths.values(), key=len)[:count]


def test_scores_equal_brute_force_on_weight_rows(family: Loaded) -> None:
    """One quadrature rule on both sides, so few nodes show as much as many."""
    prompts = of_one_length(family, 2)
    for layer in (0, 1):
        found = scores(family, layer, prompts, 1).scores
        expected = brute_force(family, layer, prompts, 1)
        assert np.abs(expected).max() > 1e-4
        np.testing.assert_allclose(found, expected, rtol=0, atol=digits(family, 1e-8))


@pytest.mark.parametrize("layer", [0, 1])
def test_scores_equal_captum_on_the_same_scale_vector(info: ModelInfo, layer: int) -> None:
    loaded = load(info)
    prompts = prompts_of(loaded)
    expected = captum_scores(loaded, layer, prompts)
    found = scores(loaded, layer, prompts, 5).scores
    # Both in float32, whose sums differ from processor to processor.
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) <= 1e-5


def captum_scores(loaded: Loaded, layer: int, prompts: list[Encoded]) -> np.ndarray[Any, Any]:
    """Captum's layer IG of a module that holds nothing but the scale vector."""

    class Scale(torch.nn.Module):
        def forward(self, scale: torch.Tensor) -> torch.Tensor:
            return scale

    holder = Scale()
    live: dict[str, torch.Tensor] = {}

    def forward(scale: torch.Tensor, prompt: Encoded) -> torch.Tensor:
        live["scale"] = holder(scale)
        ids = torch.tensor([prompt.prompt]).repeat(len(scale), 1)
        logits = loaded.model(ids, use_cache=False).logits[:, -1]
        return copy_shift(logits, [prompt] * len(scale))

    projection = loaded.model.model.layers[layer].mlp.gate_proj
    handle = projection.register_forward_hook(lambda m, a, out: out * live["scale"][:, None, :])
    captum = LayerIntegratedGradients(forward, holder)
    total = np.zeros(loaded.info.width)
    try:
        for prompt in prompts:
            ones = torch.ones(1, loaded.info.width, dtype=next(loaded.model.parameters()).dtype)
            found = captum.attribute(ones, baselines=torch.zeros_like(ones), n_steps=200,
                                     additional_forward_args=(prompt,), internal_batch_size=50)
            total += found[0].detach().double().numpy()
    finally:
        handle.remove()
    return total / len(prompts)


def test_scores_sum_to_the_change_they_explain(doubled: Loaded) -> None:
    found = scores(doubled, 1, prompts_of(doubled))
    assert np.abs(found.deltas).max() > 1e-3
    np.testing.assert_allclose(found.totals, found.deltas, atol=1e-6)
    assert found.scores.sum() == pytest.approx(found.deltas.mean(), abs=1e-6)


def test_blocks_and_their_workers_do_not_matter(info: ModelInfo) -> None:
    """Bit-equal however the blocks were computed; the reduction has one order."""
    loaded, again = load(info), load(info)
    prompts = prompts_of(loaded, 6)
    blocks = [[block(model, 0, prompts[i : i + 3], 0)]
              for model, i in ((loaded, 0), (again, 3))]
    here = [[block(loaded, 0, prompts[i : i + 3], 0)]
            for i in (0, 3)]
    assert (layer_scores(blocks, 0).scores == layer_scores(here, 0).scores).all()


def test_a_hand_made_copier_ranks_first(info: ModelInfo) -> None:
    """A neuron that adds a demonstration's answer to the stream has the highest score."""
    loaded = load(info, "float64")
    prompt = Encoded((1, 20, 30, 40), gold=(7,), answers=((9,), (11,)))
    head = loaded.model.get_output_embeddings().weight
    mlp = loaded.model.model.layers[-1].mlp
    copier, opposite = 17, 5
    with torch.no_grad():
        for neuron in (copier, opposite):
            mlp.gate_proj.weight[neuron] = mlp.gate_proj.weight[3].abs()
            mlp.up_proj.weight[neuron] = mlp.gate_proj.weight[3].abs()
            mlp.down_proj.weight[:, neuron] = 0
        hidden: dict[str, torch.Tensor] = {}
        handle = mlp.down_proj.register_forward_pre_hook(
            lambda m, args: hidden.update(value=args[0][0, -1].clone()))
        loaded.model(torch.tensor([prompt.prompt]))
        handle.remove()
        for neuron, token in ((copier, 9), (opposite, 7)):
            sign = hidden["value"][neuron].sign()
            mlp.down_proj.weight[:, neuron] = sign * head[token] * 20
    found = scores(loaded, 1, [prompt]).scores
    assert found.argmax() == copier
    assert found.argmin() == opposite


def test_replay_equals_the_whole_forward(family: Loaded) -> None:
    padded = family.info.model_type != "bloom"
    prompts = prompts_of(family) if padded else of_one_length(family, 4)
    batch = pad_left([p.prompt for p in prompts], family.device)
    assert padded == bool((batch.mask == 0).any())
    with torch.no_grad(), linear_scan():
        whole = family.model(**batch.inputs(), use_cache=False).logits
        for layer in (0, 1):
            for modules in {(), family.adapter.unscaled}:
                prefix = clean_prefix(family, batch, layer, modules)
                with started_at(family, layer, modules) as replayed:
                    replayed.prefix = prefix
                    again = family.model(**batch.inputs(), use_cache=False).logits
                    assert torch.equal(again, whole)
                    with last_position_only(family):
                        last = family.model(**batch.inputs(), use_cache=False,
                                            logits_to_keep=1).logits
                    assert last.shape[1] == 1
                    torch.testing.assert_close(last[:, -1], whole[:, -1], rtol=0, atol=1e-12)


def test_nothing_remains_on_the_model_after_a_failure(doubled: Loaded) -> None:
    prompts = prompts_of(doubled)
    before = list(doubled.model.modules())

    def broken(*_: object) -> torch.Tensor:
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        block(doubled, 1, prompts, 0, Objective(broken))
    assert list(doubled.model.modules()) == before
    for module in doubled.model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_padding_does_not_change_a_prompt(family: Loaded) -> None:
    tolerance = digits(family, 1e-10)
    if family.info.model_type == "bloom":
        family, tolerance = load(family.info), 1e-6
    prompts = prompts_of(family, 3)
    together = block(family, 0, prompts, 0)
    alone = [block(family, 0, [p], 0)
             for p in prompts]
    assert len({len(p.prompt) for p in prompts}) > 1
    np.testing.assert_allclose(together.sums, sum(a.sums for a in alone), atol=tolerance)


def test_answers_are_tokenised_in_context(doubled: Loaded) -> None:
    example = draw(get_task("en_fr_reference"), split="report", shots=2, seed=0, count=1)[0]
    found = encode(example, doubled.tokenizer)
    decode = doubled.tokenizer.decode
    assert decode(found.gold) == example.gold and len(found.gold) == len(example.gold)
    assert [decode(a) for a in found.answers] == list(example.answers)
    assert found.first_gold not in found.first_copies


def test_a_tokenizer_that_merges_across_the_answer_is_refused() -> None:
    example = draw(get_task("en_fr_reference"), split="report", shots=1, seed=0, count=1)[0]

    def merging(text: str, **options: bool) -> dict[str, list[int]]:
        return {"input_ids": [len(text)]}

    with pytest.raises(UnitError, match="merges"):
        encode(example, merging)  # type: ignore[arg-type]
