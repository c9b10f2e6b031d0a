"""The choices that the papers leave open: objectives, paths, variants, each against an oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import FAMILIES

from prunelib.attribution import quadrature
from prunelib.attribution.integrated_gradients import (
    Path,
    block_gradients,
    layer_path,
    layer_scores,
)
from prunelib.attribution.objectives.base import Objective, make_objective, objective_digest
from prunelib.attribution.scorers.base import load_scorer
from prunelib.errors import UserError
from prunelib.interventions.ablation import Ablation, ActivationMasks
from prunelib.models import Loaded, ModelInfo, load
from prunelib.models.adapter import output_dim
from prunelib.recipe.attribution import ObjectiveSpec
from prunelib.tasks import draw, get_task
from prunelib.tasks.tokenization import Encoded, encode

SHIFT = make_objective(ObjectiveSpec())


def encoded(loaded: Loaded, task: str = "vowel_counting", count: int = 3) -> list[Encoded]:
    examples = draw(get_task(task), split="attribute", shots=3, seed=0, count=40)
    prompts = [encode(example, loaded.tokenizer) for example in examples]
    # One length: BLOOM in float64 turns padding into NaN (float32 does not).
    longest: dict[int, list[Encoded]] = {}
    for prompt in prompts:
        longest.setdefault(len(prompt.prompt), []).append(prompt)
    return max(longest.values(), key=len)[:count]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, families: Any) -> Loaded:
    return load(families(request.param), "float64")


@pytest.fixture(scope="module")
def llama(info: ModelInfo) -> Loaded:
    return load(info, "float64")


def probabilities(loaded: Loaded, ids: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        return loaded.model(torch.tensor([ids])).logits[0, -1].softmax(-1)


def value(loaded: Loaded, objective: Objective, prompt: Encoded) -> float:
    """F of one prompt, by the same rows as attribution."""
    found = block_gradients(loaded, layer_path(loaded, 0), [prompt], objective, np.ones(1))
    return float(found[0].values[0, 0])


def test_copy_shift_switches_are_what_they_say(llama: Loaded) -> None:
    prompt = next(p for p in encoded(llama, count=9) if len(p.first_copies) > 1)
    p = probabilities(llama, prompt.prompt)
    copies, gold = p[list(prompt.first_copies)], p[prompt.first_gold]
    logits = llama.model(torch.tensor([prompt.prompt])).logits[0, -1].detach()
    for changes, expected in [
        ({}, copies.mean() - gold),
        ({"aggregate": "sum"}, copies.sum() - gold),
        ({"aggregate": "max"}, copies.max() - gold),
        ({"gold_only": True}, -gold),
        ({"gold_only": True, "aggregate": "max"}, -gold),
        ({"space": "log_probability"}, copies.log().mean() - gold.log()),
        ({"space": "logit"}, logits[list(prompt.first_copies)].mean() - logits[prompt.first_gold]),
    ]:
        objective = make_objective(ObjectiveSpec.model_validate(changes))
        assert value(llama, objective, prompt) == pytest.approx(float(expected), rel=1e-6), changes
    assert value(llama, make_objective(ObjectiveSpec(name="max_logit")), prompt) == pytest.approx(
        float(logits.max()), rel=1e-6)


def test_answers_of_several_tokens_are_teacher_forced(llama: Loaded) -> None:
    """Σ over the tokens of every answer, each given those before it, by separate passes."""
    prompt = encoded(llama, "en_fr_reference", 1)[0]
    assert len(prompt.gold) > 1

    def score(answer: tuple[int, ...]) -> float:
        return sum(float(probabilities(llama, prompt.prompt + answer[:i])[token].log())
                   for i, token in enumerate(answer))

    copies = set(prompt.answers) - {prompt.gold}
    for aggregate, share in (("mean", 1 / len(copies)), ("sum", 1.0)):
        objective = make_objective(ObjectiveSpec.model_validate(
            {"tokens": "all", "space": "log_probability", "aggregate": aggregate}))
        expected = share * sum(map(score, copies)) - score(prompt.gold)
        assert value(llama, objective, prompt) == pytest.approx(expected, rel=1e-6)
    two = [prompt, encoded(llama, "en_fr_reference", 2)[-1]]
    together = block_gradients(llama, layer_path(llama, 1), two, objective, np.array([0.5, 1.0]))
    alone = [block_gradients(llama, layer_path(llama, 1), [p], objective, np.array([0.5, 1.0]))
             for p in two]
    np.testing.assert_allclose(together[0].sums, sum(a[0].sums for a in alone), atol=1e-10)
    np.testing.assert_allclose(together[0].totals, np.hstack([a[0].totals for a in alone]),
                               atol=1e-10)


def test_a_users_own_objective_is_imported_and_identified(llama: Loaded) -> None:
    spec = ObjectiveSpec(name=f"{__name__}:negative_gold")
    prompt = encoded(llama)[0]
    expected = -float(probabilities(llama, prompt.prompt)[prompt.first_gold])
    assert value(llama, make_objective(spec), prompt) == pytest.approx(expected, rel=1e-6)
    assert objective_digest(spec) != objective_digest(ObjectiveSpec(name=f"{__name__}:other"))
    for name in ("no.such.module:f", f"{__name__}:no_such", f"{__name__}:SHIFT"):
        with pytest.raises(UserError, match=name):
            make_objective(ObjectiveSpec(name=name))


def negative_gold(logits: torch.Tensor, prompts: Any) -> torch.Tensor:
    gold = torch.tensor([p.first_gold for p in prompts])
    return -logits.float().softmax(-1).gather(1, gold[:, None])[:, 0]


def other(logits: torch.Tensor, prompts: Any) -> torch.Tensor:
    return logits[:, 0]


def attributed(loaded: Loaded, path: Path, prompts: list[Encoded], level: int = 3) -> Any:
    parts = [block_gradients(loaded, path, prompts, SHIFT, quadrature.new_nodes(i))
             for i in range(level + 1)]
    return [layer_scores([[part[i] for part in parts]], level, path.released)
            for i in range(len(path.layers))]


def scaled(loaded: Loaded, layers: tuple[int, ...], alpha: float, prompt: Encoded) -> float:
    """F with whole projections scaled by α, on real weights."""
    weights = [loaded.adapter.layers(loaded.model)[i].get_submodule(
        loaded.adapter.hidden[0]).weight for i in layers]
    originals = [w.data.clone() for w in weights]
    try:
        for weight in weights:
            weight.data *= alpha
        logits = loaded.model(torch.tensor([prompt.prompt])).logits[:, -1].detach()
        return float(SHIFT.function(logits, [prompt])[0])
    finally:
        for weight, original in zip(weights, originals, strict=True):
            weight.data = original


def test_the_joint_path_explains_all_layers_together(family: Loaded) -> None:
    if family.info.model_type == "opt" and not family.model.config.do_layer_norm_before:
        pytest.skip("norms after the sums make F jump near α = 0, which no quadrature resolves")
    prompts = encoded(family, count=2)
    path = replace(layer_path(family, 0), layers=(0, 1))
    found = attributed(family, path, prompts, level=5)
    total = sum(part.totals for part in found)
    expected = [scaled(family, (0, 1), 1, p) - scaled(family, (0, 1), 0, p) for p in prompts]
    assert max(map(abs, expected)) > 1e-4
    np.testing.assert_allclose(total, expected, rtol=1e-3, atol=1e-4)


def test_the_last_position_alone_is_scaled(llama: Loaded) -> None:
    """Against a pass whose gate output is scaled by hand at the last position."""
    prompts = encoded(llama, count=2)
    path = replace(layer_path(llama, 1), last_position=True)
    found = attributed(llama, path, prompts)[0]
    gate = llama.model.model.layers[1].mlp.gate_proj

    def zeroed(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        return torch.cat([output[:, :-1], 0 * output[:, -1:]], 1)

    for prompt, total in zip(prompts, found.totals, strict=True):
        before = scaled(llama, (), 1, prompt)
        handle = gate.register_forward_hook(zeroed)
        after = scaled(llama, (), 1, prompt)
        handle.remove()
        assert total == pytest.approx(before - after, abs=1e-6)
    everywhere = attributed(llama, layer_path(llama, 0), prompts)[0]
    there = attributed(llama, replace(layer_path(llama, 0), last_position=True), prompts)[0]
    assert np.abs(everywhere.scores - there.scores).max() > 1e-4


def test_the_released_variant_clamps_and_has_no_weight_factor(llama: Loaded) -> None:
    """Against autograd on the projection's output, one α and one prompt at a time."""
    prompts = encoded(llama, count=3)
    path = replace(layer_path(llama, 1), released=True)
    nodes, weights = quadrature.nodes(0), quadrature.weights(0)
    total = torch.zeros(llama.info.width, dtype=torch.float64)
    gate = llama.model.model.layers[1].mlp.gate_proj
    for prompt in prompts:
        for alpha, share in zip(nodes, weights, strict=True):
            held: list[torch.Tensor] = []

            def hook(_: Any, __: Any, output: torch.Tensor, alpha: float = alpha,
                     held: list[torch.Tensor] = held) -> torch.Tensor:
                held.append((output * alpha).detach().requires_grad_(True))
                return held[0]

            handle = gate.register_forward_hook(hook)
            logits = llama.model(torch.tensor([prompt.prompt])).logits[:, -1]
            handle.remove()
            (gradient,) = torch.autograd.grad(SHIFT.function(logits, [prompt]).sum(), held)
            total += share * gradient[0].sum(0).clamp(min=0)
    found = attributed(llama, path, prompts, level=0)[0].scores
    assert found.max() == pytest.approx(1) and found.min() >= 0
    np.testing.assert_allclose(found, (total / total.max()).numpy(), atol=1e-6)


@pytest.mark.parametrize("name", ["up", "down"])
def test_other_projections(llama: Loaded, name: Any) -> None:
    """Completeness on real weights: the whole projection scaled to nothing."""
    prompts = encoded(llama, count=2)
    projection, site = llama.adapter.projection(name)
    found = attributed(llama, Path((0,), projection, site), prompts)[0]
    module = llama.model.model.layers[0].get_submodule(projection)
    for prompt, total in zip(prompts, found.totals, strict=True):
        before = scaled(llama, (), 1, prompt)
        original = module.weight.data.clone()
        module.weight.data.zero_()
        after = scaled(llama, (), 1, prompt)
        module.weight.data = original
        assert total == pytest.approx(before - after, abs=1e-5)


def test_a_projection_that_is_not_there_is_refused(families: Any) -> None:
    gpt2, mamba = (load(families(name)).adapter for name in ("gpt2", "mamba"))
    assert gpt2.projection("up") == gpt2.projection(None)
    with pytest.raises(UserError, match="gate"):
        gpt2.projection("gate")
    with pytest.raises(UserError, match="down"):
        mamba.projection("down")


def test_single_neurons_score_what_their_loss_costs(family: Loaded) -> None:
    prompts = encoded(family, count=2)
    found = load_scorer("single")(family, layer_path(family, 1), prompts, SHIFT, 7)[0]

    def shift() -> np.ndarray:
        with torch.no_grad():
            return np.array([float(SHIFT.function(
                family.model(torch.tensor([p.prompt])).logits[:, -1], [p])[0]) for p in prompts])

    before = shift()
    for neuron in range(0, family.info.width, 7):
        with ActivationMasks(family) as masks:
            masks.set(Ablation.of_layer(1, [neuron], family.info.site))
            np.testing.assert_allclose(found[:, neuron], before - shift(), atol=1e-9)


def test_gradient_times_activation_is_the_slope_at_the_models_own_weights(family: Loaded) -> None:
    """Against the real weight gradient, one prompt at a time."""
    prompts = encoded(family, count=2)
    path = replace(layer_path(family, 0), layers=(0, 1))
    found = load_scorer("gradient_activation")(family, path, prompts, SHIFT, 100)
    for layer in (0, 1):
        projection: Any = family.adapter.layers(family.model)[layer].get_submodule(path.projection)
        projection.weight.requires_grad_(True)
        for i, prompt in enumerate(prompts):
            logits = family.model(torch.tensor([prompt.prompt])).logits[:, -1]
            (gradient,) = torch.autograd.grad(SHIFT.function(logits, [prompt]).sum(),
                                              projection.weight)
            slope = (projection.weight * gradient).sum(1 - output_dim(projection)).detach()
            loose = 1e-6 if family.info.site == "mixer_in" else 1e-9
            np.testing.assert_allclose(found[layer, i], slope, atol=loose)
        projection.weight.requires_grad_(False)


def test_magnitudes_against_one_prompt_at_a_time(family: Loaded) -> None:
    prompts = encoded(family, count=2)
    path = replace(layer_path(family, 0), layers=(0, 1))
    found = {name: load_scorer(name)(family, path, prompts, SHIFT, 1)
             for name in ("activation", "wanda", "weight")}
    inputs = family.info.site == "mlp_hidden"
    for layer in (0, 1):
        block = family.adapter.layers(family.model)[layer]
        switched, hidden = (block.get_submodule(p) for p in
                            (family.adapter.switched, path.projection))
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        handle = switched.register_forward_hook(
            lambda m, args, out, seen=seen: seen.append((args[0], out)))
        for prompt in prompts:
            with torch.no_grad():
                family.model(torch.tensor([prompt.prompt]))
        handle.remove()
        entering, leaving = ([part.reshape(-1, part.shape[-1]) for part in parts]
                             for parts in zip(*seen, strict=True))
        for i, part in enumerate(entering if inputs else leaving):
            np.testing.assert_allclose(found["activation"][layer, i], part.abs().mean(0), rtol=1e-6)
        norm = torch.cat(entering).norm(dim=0)
        weight = switched.weight.T if output_dim(switched) else switched.weight
        lost = (weight.abs() * norm).sum(0 if inputs else 1)  # Wanda's scores, summed by neuron
        np.testing.assert_allclose(found["wanda"][layer], lost, rtol=1e-6)
        rows = hidden.weight.T if output_dim(hidden) else hidden.weight
        np.testing.assert_allclose(found["weight"][layer], rows.norm(dim=1), rtol=1e-6)
