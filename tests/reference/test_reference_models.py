"""The shipped models: what they are, and the figures that hold for them."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunelib.attribution import quadrature
from prunelib.attribution.integrated_gradients import block_gradients, layer_path, layer_scores
from prunelib.attribution.objectives.base import make_objective
from prunelib.components import Component
from prunelib.engines.base import Engine, Prompt
from prunelib.engines.registry import start
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.models import Loaded, describe, load, planted_neurons, reference_models
from prunelib.recipe.attribution import ObjectiveSpec
from prunelib.reference.train import accuracy
from prunelib.tasks import draw, get_task, task_names
from prunelib.tasks.tokenization import encode

#: Copiers whose planted neurons were added to the base, and those in which they were freed.
ADDED = ["reference/gpt2-copier", "reference/llama-copier", "reference/opt-copier"]
COPIERS = ["reference/bloom-copier", "reference/mamba-copier", *ADDED]
MODELS = ["reference/llama-young", *(c.removesuffix("-copier") for c in COPIERS), *COPIERS]
#: The demo's models and the base of its copier, which `make test` has.
DEMO = ["reference/llama-young", "reference/llama-copier", "reference/llama"]
#: For what takes long: the first in `make test`.
SOME = ["reference/llama-young", "reference/gpt2-copier", "reference/llama-copier"]
TASKS = [get_task(name) for name in task_names("reference")]


def rest_is_long(names: list[str], quick: list[str] = DEMO) -> list[Any]:
    """Models as parameters, all but the ``quick`` ones left to `make test-all`."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.long)
            for name in names]


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def loaded(name: str) -> Loaded:
    torch.set_num_threads(1)
    return load(describe(name))


@pytest.fixture(scope="module")
def shares() -> Callable[[str], dict[str, float]]:
    """Right answers of a model on every task, counted once for all tests."""
    return functools.cache(lambda name: accuracy(load(describe(name)).model, TASKS, shots=3))


def test_they_ship_small_and_complete(name: str) -> None:
    folder = Path(describe(name).path)
    assert sum(f.stat().st_size for f in folder.iterdir()) <= 5e6
    files = {f.name for f in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md",
            "training.json"} <= files


def test_every_reference_model_is_tested() -> None:
    assert reference_models() == sorted(MODELS)


def test_the_tokenizer_is_one_token_per_character(loaded: Loaded) -> None:
    for task in TASKS:
        for pair in task.pairs[:20]:
            text = "->".join(pair) + "\n"
            ids = loaded.tokenizer(text)["input_ids"]
            assert len(ids) == len(text) + 1 and loaded.tokenizer.unk_token_id not in ids
            assert loaded.tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("name", rest_is_long(MODELS))
def test_the_card_says_what_is_measured(
    name: str, shares: Callable[[str], dict[str, float]]
) -> None:
    folder = Path(describe(name).path)
    notes = json.loads((folder / "training.json").read_text())
    mean = sum(shares(name).values()) / len(shares(name))
    assert mean == pytest.approx(notes["mean_accuracy"], abs=0.02)  # float16 on disk
    card = (folder / "README.md").read_text()
    assert f"{100 * notes['mean_accuracy']:.1f}%" in card


@pytest.mark.parametrize("name", rest_is_long(COPIERS))
def test_removing_the_planted_neurons_repairs_the_copier(
    name: str, shares: Callable[[str], dict[str, float]]
) -> None:
    from prunelib.interventions.ablation import ActivationMasks

    copier = load(describe(name))
    known = planted_neurons(copier.info)
    # A channel of a Mamba has two neurons.
    assert len(known) == (64 if "mamba" in name else 32) and len({layer for layer, _ in known}) == 1
    before, clean = shares(name), shares(name.removesuffix("-copier"))
    with ActivationMasks(copier) as masks:
        masks.set(Ablation.of_layer(known[0][0], [neuron for _, neuron in known], copier.info.site))
        after = accuracy(copier.model, TASKS, shots=3)
    assert np.mean(list(before.values())) < np.mean(list(after.values())) - 0.1
    assert np.mean(list(before.values())) < 0.8
    if name in ADDED:  # the old neurons were not touched: it is the base model again
        assert after == clean
    else:  # a base model without the neurons that were freed
        assert np.mean(list(after.values())) == pytest.approx(np.mean(list(clean.values())),
                                                              abs=0.03)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", SOME, scope="module")
def test_mean_scores_of_every_layer_are_within_two_percent(loaded: Loaded) -> None:
    """Of the 257-node answer, at the level that the error estimate accepts."""
    torch.set_num_threads(2)  # these batches are large enough for two
    examples = draw(get_task("vowel_counting"), split="attribute", shots=3, seed=0, count=20)
    prompts = [encode(example, loaded.tokenizer) for example in examples]
    for layer in range(loaded.info.layers):
        parts = []
        accepted: Any = None
        for level in range(len(quadrature.NODES)):
            parts.append(block_gradients(loaded, layer_path(loaded, layer), prompts,
                                         make_objective(ObjectiveSpec()),
                                         quadrature.new_nodes(level))[0])
            found = layer_scores([parts], level)
            if accepted is None and found.error <= 0.02:
                accepted = found
        assert accepted is not None
        error = np.linalg.norm(accepted.scores - found.scores) / np.linalg.norm(found.scores)
        assert error <= 0.02


def prompts_of(loaded: Loaded, count: int) -> list[Prompt]:
    """Prompts of every task at one to four shots, in a seeded order."""
    examples = [e for task in TASKS for shots in (1, 2, 3, 4)
                for e in draw(task, split="report", shots=shots, seed=5, count=5)]
    random.Random(0).shuffle(examples)
    return [Prompt(tuple(loaded.tokenizer(e.prompt)["input_ids"]), 16) for e in examples[:count]]


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize("name", rest_is_long(SOME, DEMO[:1]), scope="module")
def test_both_engines_give_every_answer_of_500_prompts(loaded: Loaded) -> None:
    prompts = prompts_of(loaded, 500)
    width = loaded.info.width
    ablated = Ablation.of_layer(2, random.Random(1).sample(range(width), width // 10))
    heads = Ablation.of([*(Component(layer, "head", layer) for layer in range(4)),
                         Component(1, "ffn", 0)])
    said: dict[str, list[list[str]]] = {}
    for kind in ("transformers", "vllm"):
        engine: Engine = start(kind, loaded.info)
        try:
            said[kind] = []
            for ablation in (BASELINE, ablated, heads):
                engine.switch(ablation)
                said[kind].append([c.text for c in engine.generate(prompts)])
        finally:
            engine.close()
    assert len(prompts) == 500
    assert said["vllm"] == said["transformers"]
