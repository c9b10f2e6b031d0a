"""Pretrained models, where they were fetched: engines, attribution and start tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pretrained import fetched
from tiny_llama import start_here

from prunelib.attribution import quadrature
from prunelib.attribution.integrated_gradients import block_gradients, layer_path, layer_scores
from prunelib.attribution.objectives.base import make_objective
from prunelib.attribution.objectives.copy_shift import copy_shift
from prunelib.engines.base import Completion, Prompt
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.models import describe, load
from prunelib.models.loading import load_tokenizer
from prunelib.recipe.attribution import ObjectiveSpec
from prunelib.tasks import draw, get_task
from prunelib.tasks.tokenization import Encoded, encode

MODELS = [pytest.param("reference/smollm2", marks=fetched("smollm2")),
          pytest.param("reference/gemma3", marks=fetched("gemma3"))]


def prompts(model: str, count: int) -> list[Encoded]:
    tokenizer = load_tokenizer(describe(model))
    return [encode(example, tokenizer) for example in draw(
        get_task("vowel_counting"), split="attribute", shots=2, seed=0, count=count)]


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.parametrize("model", MODELS)
def test_both_engines_answer_alike(model: str) -> None:
    asked = [Prompt(p.prompt, 6) for p in prompts(model, 6)]
    info = describe(model)
    some = Ablation.of_layer(2, range(0, info.width, 2))
    answers: dict[tuple[str, str], list[Completion]] = {}
    for kind in ("transformers", "vllm"):
        engine = start_here(kind, info)
        try:
            for ablation in (BASELINE, some):
                engine.switch(ablation)
                answers[kind, ablation.digest] = engine.generate(asked)
        finally:
            engine.close()
    for ablation in (BASELINE, some):
        assert answers["vllm", ablation.digest] == answers["transformers", ablation.digest]
    assert answers["vllm", BASELINE.digest] != answers["vllm", some.digest]


@pytest.mark.slow
@pytest.mark.parametrize("layer", [8, 29])
@pytest.mark.parametrize("model", MODELS[:1])
def test_scores_of_a_layer_equal_brute_force(model: str, layer: int) -> None:
    """Weight rows scaled by α one after the other, without replay, batches or hooks."""
    loaded = load(describe(model))
    (prompt,) = prompts(model, 1)
    level = 0
    found = layer_scores([[block_gradients(
        loaded, layer_path(loaded, layer), [prompt], make_objective(ObjectiveSpec()),
        quadrature.new_nodes(level))[0]]], level).scores
    weight: Any = loaded.model.model.layers[layer].mlp.gate_proj.weight
    original, expected = weight.data.clone(), np.zeros(loaded.info.width)
    weight.requires_grad_(True)
    for alpha, share in zip(quadrature.nodes(level), quadrature.weights(level), strict=True):
        weight.data, weight.grad = original * alpha, None
        logits = loaded.model(torch.tensor([prompt.prompt])).logits[:, -1]
        copy_shift(logits, [prompt]).sum().backward()
        expected += share * (original * weight.grad).sum(1).double().numpy()
    assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_plain_text_is_likely(model: str) -> None:
    """A start token that is missing, or weights in a wrong order, cost whole nats a token.

    SmolLM2 gives this text 4.2 nats a token. On prompts of tasks, Gemma-3-270M gives 9.4 without
    its start token, and 5.6 with it.
    """
    loaded = load(describe(model))
    text = ("The market opens at seven in the morning. Farmers from the villages bring fruit, "
            "cheese and bread, and by noon most of it is sold.")
    ids = torch.tensor([loaded.tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        loss = loaded.model(ids, labels=ids).loss
    assert float(loss) < 5.0
