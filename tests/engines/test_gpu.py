"""What only a GPU can show. The contract tests of this folder also run there as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_llama import LAYERS, WIDTH, random_prompts, start_here

from prunelib.attribution import quadrature
from prunelib.attribution.integrated_gradients import block_gradients, layer_path
from prunelib.attribution.objectives.base import make_objective
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.models import Loaded, ModelInfo, load
from prunelib.recipe.attribution import ObjectiveSpec
from prunelib.tasks.tokenization import Encoded

COPY_SHIFT = make_objective(ObjectiveSpec())
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


def test_scores_on_a_gpu_are_those_of_a_cpu(info: ModelInfo) -> None:
    loaded = load(info, "float64")
    model = load(info, "float64").model.to("cpu")  # type: ignore[arg-type]
    on_cpu = Loaded(info, model, loaded.tokenizer, loaded.adapter)
    prompts = [Encoded(p, (7,), ((9,), (11,))) for p in random_prompts(4, 10, 20)]
    for layer in range(LAYERS):
        found, expected = (block_gradients(m, layer_path(m, layer), prompts,
                                           COPY_SHIFT, quadrature.new_nodes(0))[0]
                           for m in (loaded, on_cpu))
        np.testing.assert_allclose(found.sums, expected.sums, rtol=0, atol=1e-8)


@pytest.mark.vllm
def test_switching_back_under_captured_graphs_restores_the_weights(info: ModelInfo) -> None:
    """In-place column edits must be seen by captured graphs, and undone bit for bit."""
    engine = start_here("vllm", info)
    prompts = [list(p) for p in random_prompts(6, 10, 40)]
    candidates = [list(range(4, 20))] * len(prompts)
    a, b = Ablation.of_layer(0, range(0, WIDTH, 2)), Ablation.of_layer(1, range(5, 30))
    try:
        said = []
        for ablation in (BASELINE, a, b, a, BASELINE):
            engine.switch(ablation)
            said.append(engine.logprobs(prompts, candidates))
    finally:
        engine.close()
    assert said[0] != said[1] != said[2]
    np.testing.assert_allclose(said[3], said[1], atol=1e-4)
    np.testing.assert_allclose(said[4], said[0], atol=1e-4)
