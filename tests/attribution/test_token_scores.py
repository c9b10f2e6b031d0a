"""Scores of tokens against Captum, against the change they explain, and on a hand-made model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients
from tiny_families import FAMILIES

from prunelib.attribution.explanation import explain_prompt
from prunelib.attribution.token_attribution import Target, predicted, token_scores
from prunelib.errors import UserError
from prunelib.interventions.ablation import Ablation, switch_off
from prunelib.interventions.fine_tuning import FineTuning
from prunelib.models import Loaded, ModelInfo, load
from prunelib.recipe.controls import FineTuningSpec

IDS = [1, 20, 21, 22, 23, 24, 25, 30]
PAD = 0


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, families: Callable[[str], ModelInfo]) -> Loaded:
    """A tiny model of each family in float64, whose padding token is not at zero."""
    loaded = load(families(request.param), "float64")
    torch.manual_seed(1)
    torch.nn.init.normal_(loaded.model.get_input_embeddings().weight[PAD], std=0.3)
    return loaded


def digits(loaded: Loaded) -> float:
    """Relative L2 to which two rules agree; OPT's ReLU makes a path with corners."""
    return 1e-2 if loaded.info.model_type == "opt" else 1e-5


def captum_scores(loaded: Loaded, target: Target, origin: str) -> np.ndarray[Any, Any]:
    """Captum's (layer) IG of the embeddings, summed over their dimensions."""
    model = loaded.model

    def of_ids(ids: torch.Tensor) -> torch.Tensor:
        return target.of(model(ids, use_cache=False).logits[:, -1])

    def of_embeddings(embedded: torch.Tensor) -> torch.Tensor:
        return target.of(model(inputs_embeds=embedded, use_cache=False).logits[:, -1])

    ids, embed = torch.tensor([IDS]), model.get_input_embeddings()
    options = {"n_steps": 200, "internal_batch_size": 50}
    if origin == "padding":
        found = LayerIntegratedGradients(of_ids, embed).attribute(
            ids, baselines=torch.full_like(ids, PAD), **options)
    else:
        found = IntegratedGradients(of_embeddings).attribute(embed(ids).detach(), **options)
    return found.sum(-1)[0].detach().double().numpy()


@pytest.mark.parametrize("quantity", ["logit", "probability"])
def test_scores_equal_captum(family: Loaded, quantity: Any) -> None:
    target = Target(predicted(family, IDS), quantity)
    found = token_scores(family, IDS, target, tolerance=0)
    expected = captum_scores(family, target, "padding")
    assert np.linalg.norm(found.scores - expected) <= digits(family) * np.linalg.norm(expected)
    assert abs(found.gap) <= digits(family) * np.abs(found.scores).sum()
    assert found.error <= 1e-2 and abs(found.end - found.start) > 1e-3


@pytest.mark.parametrize("name", ["gpt2", "bloom", "gpt_neox"])
def test_a_path_from_zero_equals_captum(families: Callable[[str], ModelInfo], name: str) -> None:
    """Where no RMS norm stands behind zero, Captum's steps are fine enough too."""
    loaded = load(families(name), "float64")
    target = Target(predicted(loaded, IDS))
    found = token_scores(loaded, IDS, target, origin="zero", tolerance=0)
    expected = captum_scores(loaded, target, "zero")
    assert np.linalg.norm(found.scores - expected) <= 0.01 * np.linalg.norm(expected)


def test_a_path_from_zero_is_complete_behind_rms_norms(doubled: Loaded) -> None:
    found = token_scores(doubled, IDS, Target(predicted(doubled, IDS)), origin="zero")
    assert abs(found.gap) <= 0.02 * np.abs(found.scores).sum()


def test_nodes_are_added_until_the_error_is_small_enough(families: Callable[[str], ModelInfo]
                                                         ) -> None:
    loaded = load(families("gpt2"), "float64")
    target = Target(predicted(loaded, IDS))
    best = token_scores(loaded, IDS, target, tolerance=0)
    few, many = (token_scores(loaded, IDS, target, tolerance=t) for t in (0.05, 1e-6))
    assert few.nodes < many.nodes < best.nodes == 257
    for found, tolerance in ((few, 0.05), (many, 1e-6)):
        assert found.error <= tolerance
        assert (np.linalg.norm(found.scores - best.scores)
                <= tolerance * np.linalg.norm(best.scores))


def test_under_an_ablation_the_ablated_weights_are_explained(family: Loaded) -> None:
    info = family.info
    ablation = Ablation.of([*Ablation.of_layer(0, range(0, info.width, 2), info.site).components,
                            *Ablation.of_layer(1, range(7), info.site).components])
    target = Target(predicted(family, IDS))
    before = token_scores(family, IDS, target)
    with ablation.applied(family) as live:
        after, masked = token_scores(live, IDS, target), predicted(live, IDS)
    weights = {name: value.clone() for name, value in family.model.state_dict().items()}
    try:
        switch_off(family.model, info, ablation)
        expected = token_scores(family, IDS, target)
        assert masked == predicted(family, IDS)
    finally:
        family.model.load_state_dict(weights)
    np.testing.assert_allclose(after.scores, expected.scores, rtol=0, atol=1e-6)
    assert np.abs(after.scores - before.scores).max() > 1e-3


def test_a_fine_tuning_is_explained_by_its_own_weights(doubled: Loaded) -> None:
    """Embeddings included, which are where the path begins and ends."""
    tuning = FineTuning((("ab->", "xy"),), FineTuningSpec(epochs=3, learning_rate=0.01))
    before, after = explain_prompt(doubled, "ab->", tuning, answer="xy").views
    with tuning.applied(doubled) as tuned:
        (expected,) = explain_prompt(tuned, "ab->", answer="xy").views
    assert after.found.end == expected.found.end > before.found.end
    np.testing.assert_array_equal(after.found.scores, expected.found.scores)


def test_on_a_linear_model_each_token_is_worth_its_own_share(families: Callable[[str], ModelInfo]
                                                             ) -> None:
    """Layers that sum positions, and a head without a norm: F is a sum over tokens."""
    loaded = load(families("llama"), "float64")
    model: Any = loaded.model
    for layer in model.model.layers:
        layer.forward = lambda stream, **_: stream.cumsum(1)
    model.model.norm = torch.nn.Identity()
    weight, head = model.get_input_embeddings().weight, model.lm_head.weight
    torch.nn.init.normal_(weight[PAD])
    with torch.no_grad():
        once = ((weight[IDS] - weight[PAD]) @ head[5]).numpy()
    shares = once * np.arange(len(IDS), 0, -1)  # two layers: the first token enters 8 times
    found = token_scores(loaded, IDS, Target(5))
    np.testing.assert_allclose(found.scores, shares, rtol=0, atol=1e-12)
    assert found.nodes == 9 and found.gap == pytest.approx(0, abs=1e-12)


def test_nothing_remains_on_the_model_and_unknown_components_are_refused(doubled: Loaded) -> None:
    prompt = doubled.tokenizer.decode(IDS[1:])
    with pytest.raises(UserError, match="is not in a model"):
        explain_prompt(doubled, prompt, Ablation.of_layer(0, [10_000]))
    explain_prompt(doubled, prompt, Ablation.of_layer(0, [1]))
    for module in doubled.model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
