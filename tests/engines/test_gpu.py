"""What only a GPU shows of vLLM; for the rest see the checks of tests/benchmarks/test_gpu_check.py.

The contract tests of this folder also run on a GPU as they are.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_llama import WIDTH, random_prompts, start_here

from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.models import ModelInfo

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


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
