"""Models over several devices compute what they compute on one, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny_llama import random_prompts, with_answers
from two_devices import FAR, Far, spread

from prunelib.attribution.gates import gated
from prunelib.attribution.integrated_gradients import Path as ScaledPath
from prunelib.attribution.integrated_gradients import block_gradients, layer_path
from prunelib.attribution.objectives.base import make_objective
from prunelib.attribution.scorers.base import load_scorer
from prunelib.components import Component
from prunelib.engines.base import Prompt
from prunelib.engines.transformers import TransformersEngine
from prunelib.errors import UserError
from prunelib.heads.importance import gradient_importance
from prunelib.heads.in_context import accuracy_changes, log_probability_increase
from prunelib.heads.induction import copying, prefix_matching
from prunelib.heads.label_readings import label_readings
from prunelib.heads.labelled import LabelledPrompt, label_logprobs
from prunelib.heads.sequences import draw_sequences
from prunelib.interventions.ablation import Ablation
from prunelib.interventions.label_bias import minority_boost, without_positions
from prunelib.interventions.task_vectors import last_streams
from prunelib.models import Loaded, ModelInfo, load
from prunelib.models.placement import device_map, devices
from prunelib.recipe.attribution import ObjectiveSpec
from prunelib.search.grid import greedy_rows

PROMPTS = with_answers(random_prompts(5, 8, 16))
OBJECTIVE = make_objective(ObjectiveSpec())
#: One of each form: gated, with biases and one dimension for rows and positions, with tuples.
FAMILIES = ("llama", "opt", "bloom", "gpt2", "gemma3_text", "mamba")


def test_layers_are_spread_evenly_and_all_else_is_together(info: ModelInfo) -> None:
    places = device_map(info, [0, 1])
    assert places.pop("model.layers.0") == 0 and places.pop("model.layers.1") == 1
    assert set(places.values()) == {0}
    assert {"lm_head", "model.embed_tokens", "model.norm"} <= set(places)
    assert set(device_map(info, ["cpu", "disk"]).values()) == {"cpu", "disk"}


def test_devices_are_those_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices(4) == ["cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices(2) == [0, 1]
    with pytest.raises(UserError, match=r"3 GPUs are asked for .* has 2"):
        devices(3)


def attribution(loaded: Loaded) -> Iterator[Any]:
    alphas = np.array([0.0, 0.3, 0.9])[:, None] + np.linspace(0, 0.1, len(PROMPTS))
    for layer in range(loaded.info.layers):
        found, = block_gradients(loaded, layer_path(loaded, layer), PROMPTS, OBJECTIVE, alphas,
                                 weights=np.array([[0.2, 0.3, 0.5], [0.5, 0.5, 0.0]]), ends=True)
        yield from (found.sums, found.totals, found.values, found.each, found.ends)
    joint = ScaledPath(tuple(range(loaded.info.layers)), *loaded.adapter.projection(None))
    yield from (found.sums for found in
                block_gradients(loaded, joint, PROMPTS, OBJECTIVE, alphas))


def grid(loaded: Loaded) -> Iterator[Any]:
    for layer in range(loaded.info.layers):
        ablations = [Ablation.of_layer(layer, range(0, loaded.info.width, step),
                                       loaded.adapter.site) for step in (2, 3, 7)]
        found = greedy_rows(loaded, layer, ablations, PROMPTS, 3, ())
        yield from (found.margins, found.tokens)


def importance(loaded: Loaded) -> Iterator[Any]:
    if loaded.info.heads:
        for variants in gradient_importance(loaded, PROMPTS).values():
            yield from (found.each for found in variants.values())


def heads(loaded: Loaded) -> Iterator[Any]:
    if loaded.info.heads:
        yield prefix_matching(loaded, draw_sequences(loaded, 2, repeats=4, seed=0))
        yield copying(loaded, draw_sequences(loaded, 2, repeats=1, seed=0))
        asked = [LabelledPrompt(p.prompt, (5, 9), i % 2, (3, 5), (0, 1), str(i))
                 for i, p in enumerate(PROMPTS)]
        yield from accuracy_changes(loaded, asked)
        if loaded.adapter.final_norm:
            some = [Component(layer, "head", 0) for layer in range(loaded.info.layers)]
            read = label_readings(loaded, asked, some)
            yield from (*log_probability_increase(loaded, asked), read.attention, read.value_minus)
            with minority_boost(loaded, some, [[-3, -2]] * len(asked), [2.0] * len(asked)):
                yield label_logprobs(loaded, asked)
        if loaded.adapter.heads and loaded.adapter.heads.position != "learned":
            with without_positions(loaded, [Component(1, "head", 0)]):
                yield label_logprobs(loaded, asked)


def scorers(loaded: Loaded) -> Iterator[Any]:
    path = ScaledPath(tuple(range(loaded.info.layers)), *loaded.adapter.projection(None))
    for name in ("activation", "gradient_activation", "wanda", "weight"):
        yield load_scorer(name)(loaded, path, PROMPTS, OBJECTIVE, 10)
    with gated(loaded, 0, PROMPTS, OBJECTIVE) as gradient:
        yield from gradient(np.full(loaded.info.width, 0.5))
    yield last_streams(loaded, [p.prompt for p in PROMPTS]).float().numpy()


def engine(loaded: Loaded) -> Iterator[Any]:
    running = TransformersEngine(loaded)
    for layer in range(loaded.info.layers):
        running.switch(Ablation.of_layer(layer, range(9), loaded.adapter.site))
        yield [c.token_ids for c in running.generate([Prompt(p.prompt, 4) for p in PROMPTS])]
        yield running.logprobs([p.prompt for p in PROMPTS], [range(4, 20)] * len(PROMPTS))
        yield [f.logprobs for f in running.force([p.prompt for p in PROMPTS],
                                                 [p.gold for p in PROMPTS])]
    running.close()


WORK = (attribution, grid, importance, heads, scorers, engine)


def same(found: Iterator[Any], expected: Iterator[Any]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.array(one, dtype=object) if isinstance(one, list) else one,
                                      np.array(other, dtype=object) if isinstance(other, list)
                                      else other)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("work", WORK)
def test_two_devices_never_meet_and_compute_the_same(
    work: Callable[[Loaded], Iterator[Any]], family: str, families: Callable[[str], ModelInfo]
) -> None:
    """The second half of the layers is on a device that refuses tensors of the other one."""
    one, two = (load(families(family), "float32", ["cpu"]) for _ in range(2))
    expected = list(work(one))
    with spread(two, 1):
        found = list(work(two))
    same(iter(found), iter(expected))


def test_the_second_device_refuses_tensors_of_the_first() -> None:
    far = Far(torch.ones(3))
    assert far.device == FAR
    with pytest.raises(RuntimeError, match="two devices meet"):
        far + torch.ones(3)


@pytest.mark.parametrize("work", [attribution, grid, importance])
def test_half_of_the_layers_on_disk(
    work: Callable[[Loaded], Iterator[Any]], info: ModelInfo
) -> None:
    halved = load(info, "float32", ["cpu", "disk"])
    assert {p.device.type for p in halved.model.parameters()} == {"cpu", "meta"}
    same(work(halved), work(load(info, "float32", ["cpu"])))


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("work", WORK)
def test_two_gpus_compute_what_one_does(
    work: Callable[[Loaded], Iterator[Any]], family: str, families: Callable[[str], ModelInfo]
) -> None:
    one, two = (load(families(family), "float32", over) for over in ([0], [0, 1]))
    same(work(two), work(one))
