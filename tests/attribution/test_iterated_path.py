"""Iterated path attribution, on a hand-made model whose copying neurons are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_families import build_family
from tiny_llama import random_prompts

from prunelib.attribution.gates import gated
from prunelib.attribution.objectives.base import make_objective
from prunelib.attribution.scorers.iterated_path import iterated_path_scores
from prunelib.models import Loaded, load
from prunelib.recipe.attribution import ObjectiveSpec
from prunelib.tasks.tokenization import Encoded

GOLD, COPY = 10, 20
UNITS = [3, 11, 29]

COPY_SHIFT = make_objective(ObjectiveSpec())


@pytest.fixture(scope="module")
def copier(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """An OPT in whose first layer three neurons always write COPY; each alone would be enough."""
    torch.set_num_threads(1)
    loaded = load(build_family("opt", Path(tmp_path_factory.mktemp("opt"))))
    head = loaded.model.get_output_embeddings().weight
    layer = loaded.adapter.layers(loaded.model)[0]
    layer.fc1.weight[UNITS] = 0
    layer.fc1.bias[UNITS] = 1
    towards = head[COPY] - head[GOLD]
    layer.fc2.weight[:, UNITS] = 60 * (towards / towards.norm())[:, None]
    return loaded


@pytest.fixture(scope="module")
def prompts() -> list[Encoded]:
    return [Encoded(ids, (GOLD,), ((COPY,),)) for ids in random_prompts(12, 5, 12)]


def test_it_finds_neurons_that_stand_in_for_each_other(
    copier: Loaded, prompts: list[Encoded]
) -> None:
    found = iterated_path_scores(copier, 0, prompts, COPY_SHIFT)
    assert sorted(np.argsort(-found)[:3]) == UNITS
    # one at a time none of them makes a difference: what the rounds are for
    with gated(copier, 0, prompts, COPY_SHIFT) as gradient:
        def value(off: list[int]) -> float:
            gates = np.ones(copier.info.width)
            gates[off] = 0
            return gradient(gates)[0]

        normal, without = value([]), value(UNITS)
        assert all(abs(normal - value([neuron])) < 0.2 * (normal - without) for neuron in UNITS)


def test_scores_add_up_to_what_switching_off_changes(
    copier: Loaded, prompts: list[Encoded]
) -> None:
    found = iterated_path_scores(copier, 0, prompts, COPY_SHIFT)
    with gated(copier, 0, prompts, COPY_SHIFT) as gradient:
        change = (gradient(np.ones(len(found)))[0]
                  - gradient(np.where(found != 0, 0.0, 1.0))[0])
    assert found.sum() == pytest.approx(change, rel=0.1)  # nine nodes


def test_no_more_neurons_have_scores_than_the_rounds_switched_off(
    copier: Loaded, prompts: list[Encoded]
) -> None:
    found = iterated_path_scores(copier, 0, prompts, COPY_SHIFT, rounds=3, share=0.1)
    assert 0 < (found != 0).sum() <= np.ceil(0.1 * copier.info.width)


def test_it_is_deterministic(copier: Loaded, prompts: list[Encoded]) -> None:
    first, second = (iterated_path_scores(copier, 0, prompts, COPY_SHIFT) for _ in range(2))
    assert (first == second).all()
