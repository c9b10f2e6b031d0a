"""How vLLM is made to prove what it runs: the worker's switches, and each proof failing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_llama import LAYERS, WIDTH, random_prompts, start_here
from torch import nn

from prunelib.components import BASELINE, Ablation
from prunelib.engines import vllm_worker
from prunelib.engines.base import Prompt
from prunelib.engines.vllm import VllmEngine, _Memory
from prunelib.engines.vllm_worker import PrunelibWorker, _Zeroed
from prunelib.errors import EngineDeadError
from prunelib.models import ModelInfo

A, B = Ablation.units(0, [1, 5, 30]), Ablation.units(1, [0, 23, 24, 47])
BOTH = Ablation.of([*A.components, *B.components])


def request(ablation: Ablation) -> list[list[Any]]:
    return [["mlp_hidden", layer, indices]
            for layer, indices in ablation.by_layer("mlp_hidden").items()]


def rank_of_two(rank: int, weights: list[torch.Tensor]) -> PrunelibWorker:
    """A worker that owns one half of every layer's columns, with layers named as in vLLM."""
    half = WIDTH // 2
    layers = nn.ModuleList()
    for weight in weights:
        projection = nn.Linear(half, weight.shape[0], bias=False)
        projection.weight.data = weight[:, rank * half : (rank + 1) * half].clone()
        projection.requires_grad_(False)
        for name, value in (("tp_rank", rank), ("tp_size", 2), ("input_size_per_partition", half)):
            setattr(projection, name, value)
        layer = nn.Module()
        layer.mlp = nn.Module()
        layer.mlp.down_proj = projection
        layers.append(layer)
    model = nn.Module()
    model.model = nn.Module()
    model.model.layers = layers
    worker = PrunelibWorker()
    worker.model_runner = SimpleNamespace(get_model=lambda: model)  # type: ignore[attr-defined]
    worker.model = model  # type: ignore[attr-defined]
    return worker


@pytest.fixture(params=["mask", "columns"])
def ranks(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[torch.Tensor], list[PrunelibWorker]]:
    """Two ranks of a two-layer model, switched in either of the two ways."""
    if request.param == "columns":
        monkeypatch.setattr(
            vllm_worker, "_switch_for",
            lambda p, _, __, enters: _Zeroed(p.weight.data, 1 if enters else 0),
        )
    torch.manual_seed(0)
    weights = [torch.randn(6, WIDTH) for _ in range(LAYERS)]
    workers = [rank_of_two(rank, weights) for rank in (0, 1)]
    slices = [w.prunelib_install([["mlp_hidden", "mlp.down_proj", True, WIDTH, 1]], LAYERS)
              for w in workers]
    assert slices == [[["mlp_hidden", 0, WIDTH // 2]], [["mlp_hidden", WIDTH // 2, WIDTH]]]
    return weights, workers


def run(workers: list[PrunelibWorker], layer: int, x: torch.Tensor) -> torch.Tensor:
    """What the ranks' projections sum to, each on its slice of the input."""
    projections = [w.model.model.layers[layer].mlp.down_proj for w in workers]  # type: ignore
    return sum(p(part) for p, part in zip(projections, x.chunk(2, dim=-1), strict=True))


def test_every_rank_switches_its_own_slice(
    ranks: tuple[list[torch.Tensor], list[PrunelibWorker]],
) -> None:
    weights, workers = ranks
    x = torch.randn(3, WIDTH)
    before = [run(workers, layer, x) for layer in range(LAYERS)]
    for ablation in (A, B, BOTH, BASELINE, A):
        for worker in workers:
            worker.prunelib_switch(request(ablation))
        for layer, weight in enumerate(weights):
            zeroed = weight.clone()
            zeroed[:, ablation.by_layer("mlp_hidden").get(layer, [])] = 0
            torch.testing.assert_close(run(workers, layer, x), x @ zeroed.T)
        for start, worker in zip((0, WIDTH // 2), workers, strict=True):
            own = Ablation.of(
                c for c in ablation.components if start <= c.index < start + WIDTH // 2
            )
            assert worker.prunelib_readback() == [request(own), own.digest]
    for worker in workers:
        worker.prunelib_switch([])
    assert all(torch.equal(run(workers, i, x), before[i]) for i in range(LAYERS))


@pytest.mark.parametrize("dim", [0, 1])
def test_zeroed_units_come_back_bit_for_bit_and_native_zeros_are_not_an_ablation(dim: int) -> None:
    weight = torch.randn(8, 8, dtype=torch.bfloat16)
    units = weight.movedim(dim, 0)
    units[[2, 6]] = 0
    original = weight.clone()
    switch = _Zeroed(weight, dim)
    assert switch.off() == []
    switch.set([1, 2])
    assert switch.off() == [1, 2]
    assert not units[[1, 2, 6]].any()
    units[4] = 0  # by someone else
    assert switch.off() == [1, 2, 4]
    units[4] = original.movedim(dim, 0)[4]
    units[1] = 1
    assert switch.off() == [2]
    switch.set([])
    assert torch.equal(weight, original)


def test_a_model_of_another_shape_is_refused() -> None:
    worker = rank_of_two(0, [torch.randn(6, WIDTH)])
    for path, layers, width in (
        ("mlp.c_proj", 1, WIDTH),
        ("mlp.down_proj", 2, WIDTH),
        ("mlp.down_proj", 1, WIDTH + 2),
    ):
        with pytest.raises(RuntimeError):
            worker.prunelib_install([["mlp_hidden", path, True, width, 1]], layers)


def test_the_canarys_memory(caplog: pytest.LogCaptureFixture) -> None:
    memory = _Memory(0.0)
    memory.check(BASELINE, [-1.0, -2.0])
    memory.check(A, [-1.5, -2.0])
    memory.check(BASELINE, [-1.0, -2.0])
    assert not caplog.records
    memory.check(B, [-1.0, -2.0])
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    for answer in ([-1.5, -2.0000001], [float("nan"), -2.0]):
        with pytest.raises(EngineDeadError, match="no longer"):
            memory.check(A, answer)


@pytest.fixture(scope="module")
def engine(info: ModelInfo) -> Iterator[VllmEngine]:
    engine = start_here("vllm", info)
    assert isinstance(engine, VllmEngine)
    yield engine
    engine.close()


def lying(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Make vLLM fail one of its proofs."""
    real = engine._llm.collective_rpc

    def rpc(method: str, args: tuple[Any, ...] = ()) -> Any:
        if how == "crash":
            raise RuntimeError("worker died")
        if how == "deaf" and method == "prunelib_switch":
            return [None]
        if how == "wrong digest" and method == "prunelib_readback":
            return [[off, BASELINE.digest] for off, _ in real(method)]
        return real(method, args=args)

    monkeypatch.setattr(engine._llm, "collective_rpc", rpc)
    if how == "stale cache":
        monkeypatch.setattr(engine._llm, "reset_prefix_cache", lambda: False)


@pytest.mark.vllm
@pytest.mark.parametrize("how", ["crash", "deaf", "wrong digest", "stale cache"])
def test_a_failed_proof_is_a_dead_engine_until_a_switch_succeeds(
    how: str, engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = Prompt(random_prompts(1, 10, 10)[0], 4)
    engine.switch(A)
    said = engine.generate([prompt])
    engine.switch(BASELINE)
    with monkeypatch.context() as patch:
        lying(engine, patch, how)
        with pytest.raises(EngineDeadError):
            engine.switch(A)
        with pytest.raises(EngineDeadError):
            engine.generate([prompt])
    engine.switch(A)
    assert engine.generate([prompt]) == said


@pytest.mark.vllm
def test_weights_that_changed_behind_our_back_are_noticed(engine: VllmEngine) -> None:
    engine.switch(BASELINE)
    model = engine._llm.llm_engine.model_executor.driver_worker.worker.model_runner.get_model()
    weight = model.model.norm.weight
    saved = weight.data.clone()
    weight.data[:] = saved * 1.01
    with pytest.raises(EngineDeadError, match="no longer"):
        engine.switch(BASELINE)
    weight.data[:] = saved
    engine.switch(BASELINE)


@pytest.mark.vllm
def test_a_switch_without_effect_is_a_warning(
    engine: VllmEngine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.switch(BASELINE)
    worker = engine._llm.llm_engine.model_executor.driver_worker.worker
    # The mask is set and reads back right, but nothing multiplies by it.
    projections = vllm_worker._projections(worker.model_runner.get_model(), "mlp.down_proj", LAYERS)
    for projection in projections:
        monkeypatch.setattr(projection, "_forward_pre_hooks", {})
    caplog.clear()
    monkeypatch.setattr(engine, "_memory", _Memory(0.0))
    engine.switch(A)
    engine.switch(B)
    assert [r.levelno for r in caplog.records] == [logging.WARNING]


@pytest.mark.vllm
def test_nothing_runs_on_a_closed_engine(engine: VllmEngine) -> None:
    engine.close()
    with pytest.raises(EngineDeadError, match="closed"):
        engine.logprobs([(1, 2)], [(3,)])
    with pytest.raises(EngineDeadError):
        engine.switch(BASELINE)
