"""Gates: their gradient is what finite differences say, in every family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_families import build_family
from tiny_llama import random_prompts

from prunelib.attribution.gates import gated
from prunelib.attribution.objectives.base import Objective
from prunelib.models import load
from prunelib.tasks.tokenization import Encoded

GOLD, COPY = 10, 20


def logit_shift(logits: torch.Tensor, prompts: Sequence[Encoded]) -> torch.Tensor:
    """An objective that does not level off."""
    return logits[:, COPY] - logits[:, GOLD]


def prompts(count: int) -> list[Encoded]:
    return [Encoded(ids, (GOLD,), ((COPY,),))
            for ids in random_prompts(count, 5, 12)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "bloom", "mamba"])
def test_the_gradient_is_that_of_finite_differences(family: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    loaded = load(build_family(family, tmp_path))
    width, step = loaded.info.width, 1e-2
    rng = np.random.default_rng(0)
    start = rng.uniform(0.2, 1, (3, width))  # another state for every prompt
    with gated(loaded, 1, prompts(3), Objective(logit_shift)) as gradient:
        slopes = gradient(start)[1]
        for neuron in rng.choice(width, 6, replace=False):
            there, back = start.copy(), start.copy()
            there[:, neuron] += step
            back[:, neuron] -= step
            expected = (gradient(there)[0] - gradient(back)[0]) / (2 * step)
            assert slopes[neuron] == pytest.approx(expected, abs=2e-3, rel=2e-2)


def test_open_gates_are_the_untouched_model_and_leave_nothing_behind(tmp_path: Path) -> None:
    loaded = load(build_family("llama", tmp_path))
    some = prompts(2)
    with torch.no_grad():
        expected = torch.cat([
            logit_shift(loaded.model(torch.tensor([p.prompt])).logits[:, -1], [p]) for p in some])
    with gated(loaded, 1, some, Objective(logit_shift)) as gradient:
        value = gradient(np.ones(loaded.info.width))[0]
    assert value == pytest.approx(float(expected.mean()), abs=1e-4)
    assert not any(module._forward_hooks or module._forward_pre_hooks
                   for module in loaded.model.modules())
