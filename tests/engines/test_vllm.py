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

from prunelib.engines import vllm_worker
from prunelib.engines.base import Prompt
from prunelib.engines.canary import CanaryMemory
from prunelib.engines.vllm import VllmEngine
from prunelib.engines.vllm_worker import PrunelibWorker, _Zeroed
from prunelib.errors import EngineDeadError
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.models import ModelInfo

A, B = Ablation.of_layer(0, [1, 5, 30]), Ablation.of_layer(1, [0, 23, 24, 47])
BOTH = Ablation.of([*A.components, *B.components])


def request(ablation: Ablation) -> list[list[Any]]:
    return [["mlp_hidden", layer, indices]
            for layer, indices in ablation.by_layer("mlp_hidden").items()]


def rank_of_two(rank: int, weights: list[torch.Tensor]) -> PrunelibWorker:
    """A worker that owns one half of every layer's columns, with layers named as in vLLM."""
    half = WIDTH // 2
    projections = []
    for weight in weights:
        projection = nn.Linear(half, weight.shape[0], bias=False)
        projection.weight.data = weight[:, rank * half : (rank + 1) * half].clone()
        projection.input_size_per_partition = half  # type: ignore[assignment]
        projections.append(projection)
    return worker_with("down_proj", projections, rank)


class ColumnParallel(nn.Linear):
    """A rank's part of vLLM's projection of that name: with the output comes what was not added."""

    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x), None


def half_of_the_rows(rank: int, whole: list[nn.Linear]) -> PrunelibWorker:
    """A worker that owns one half of every layer's rows and of their biases."""
    projections = []
    for projection in whole:
        part = ColumnParallel(projection.in_features, WIDTH // 2)
        part.weight.data = projection.weight.data.chunk(2)[rank].clone()
        part.bias.data = projection.bias.data.chunk(2)[rank].clone()
        part.output_size_per_partition = WIDTH // 2  # type: ignore[assignment]
        projections.append(part)
    return worker_with("c_fc", projections, rank)


def worker_with(name: str, projections: list[nn.Linear], rank: int) -> PrunelibWorker:
    layers = nn.ModuleList()
    for projection in projections:
        projection.requires_grad_(False)
        projection.tp_rank, projection.tp_size = rank, 2  # type: ignore[assignment]
        layer = nn.Module()
        layer.mlp = nn.Module()
        setattr(layer.mlp, name, projection)
        layers.append(layer)
    model = nn.Module()
    model.model = nn.Module()
    model.model.layers = layers
    worker = PrunelibWorker()
    worker.model_runner = SimpleNamespace(get_model=lambda: model)  # type: ignore[attr-defined]
    worker.model = model  # type: ignore[attr-defined]
    return worker


@pytest.fixture(params=["mask", "zeroed"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either of the two ways to switch: as on a CPU, as on a GPU."""
    if request.param == "zeroed":
        real, gpu = vllm_worker._switch_for, SimpleNamespace(device=SimpleNamespace(type="cuda"))
        monkeypatch.setattr(vllm_worker, "_switch_for",
                            lambda p, neurons, _, *place: real(p, neurons, gpu, *place))
    return str(request.param)


@pytest.fixture
def ranks(way: str) -> tuple[list[torch.Tensor], list[PrunelibWorker]]:
    """Two ranks of a two-layer model, switched in either of the two ways."""
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


def test_every_rank_zeroes_its_own_weight_rows_and_keeps_their_biases(way: str) -> None:
    torch.manual_seed(0)
    whole = [nn.Linear(6, WIDTH).requires_grad_(False) for _ in range(LAYERS)]
    workers = [half_of_the_rows(rank, whole) for rank in (0, 1)]
    for rank, worker in enumerate(workers):
        own = [rank * WIDTH // 2, (rank + 1) * WIDTH // 2]
        assert worker.prunelib_install([["mlp_row", "mlp.c_fc", False, WIDTH, 1]], LAYERS) == [
            ["mlp_row", *own]]
    x = torch.randn(3, 6)

    def said(layer: int) -> torch.Tensor:
        parts = [w.model.model.layers[layer].mlp.c_fc(x) for w in workers]  # type: ignore
        assert all(not_added is None for _, not_added in parts)
        return torch.cat([part for part, _ in parts], dim=-1)

    before = [said(layer) for layer in range(LAYERS)]
    for ablation in (A, B, BOTH, BASELINE, A):
        asked = ablation.by_layer("mlp_hidden")
        for worker in workers:
            worker.prunelib_switch([["mlp_row", *row] for row in asked.items()])
        for layer, projection in enumerate(whole):
            zeroed = projection.weight.clone()
            zeroed[asked.get(layer, [])] = 0
            torch.testing.assert_close(said(layer), x @ zeroed.T + projection.bias)
            for neuron in asked.get(layer, []):
                assert (said(layer)[:, neuron] == projection.bias[neuron]).all()
        for first, worker in zip((0, WIDTH // 2), workers, strict=True):
            own = [["mlp_row", layer, found] for layer, neurons in asked.items()
                   if (found := [i for i in neurons if first <= i < first + WIDTH // 2])]
            assert worker.prunelib_readback()[0] == own
    for worker in workers:
        worker.prunelib_switch([])
    assert all(torch.equal(said(layer), before[layer]) for layer in range(LAYERS))


def test_sites_that_share_a_weight_are_switched_and_read_apart(way: str) -> None:
    """Inputs (neurons), outputs and the whole FFN of one projection; heads are two inputs each."""
    torch.manual_seed(0)
    projection = ColumnParallel(6, 5).requires_grad_(False)
    weight, bias = projection.weight.clone(), projection.bias.clone()
    projection.input_size_per_partition = 6  # type: ignore[assignment]
    projection.output_size_per_partition = 5  # type: ignore[assignment]
    worker = worker_with("c_proj", [projection], 0)
    projection.tp_size = 1  # type: ignore[assignment]
    places = [["mlp_hidden", True, 6, 1], ["mlp_out", False, 5, 1], ["ffn", False, 1, 5],
              ["head", True, 3, 2]]
    worker.prunelib_install([[site, "mlp.c_proj", *place] for site, *place in places], 1)
    x = torch.randn(4, 6)
    for asked in ({"mlp_hidden": [0, 4]}, {"head": [1]}, {"ffn": [0]}, {"mlp_out": [2, 3]},
                  {"mlp_hidden": [1], "mlp_out": [0]}, {"ffn": [0], "head": [0, 2]}, {}):
        request = [[site, 0, indices] for site, indices in asked.items()]
        worker.prunelib_switch(request)
        enters, leaves = torch.ones(6), torch.ones(5)
        enters[asked.get("mlp_hidden", [])] = 0
        for head in asked.get("head", []):
            enters[2 * head : 2 * head + 2] = 0
        leaves[asked.get("mlp_out", [])] = 0
        leaves *= "ffn" not in asked
        torch.testing.assert_close(projection(x)[0], ((x * enters) @ weight.T + bias) * leaves)
        assert sorted(worker.prunelib_readback()[0]) == sorted(request)
    assert torch.equal(projection.weight, weight) and torch.equal(projection.bias, bias)


def test_a_bias_of_another_dtype_does_not_change_that_of_the_output() -> None:
    """Some of vLLM's CPU kernels hold biases in float32 beside weights in bfloat16."""

    class Mixed(nn.Linear):
        def forward(self, x: torch.Tensor) -> Any:
            return (x @ self.weight.T + self.bias).to(x.dtype), None

    projection = Mixed(4, 3).to(torch.bfloat16).requires_grad_(False)
    bias = projection.bias.clone()
    projection.bias.data = bias.float()
    switch = vllm_worker._switch_for(projection, 3, projection.weight, "mlp_row", False)
    switch.set([1])
    output, _ = projection(torch.ones(2, 4, dtype=torch.bfloat16))
    assert output.dtype == torch.bfloat16 and (output[:, 1] == bias[1]).all()


@pytest.mark.parametrize("dim", [0, 1])
def test_zeroed_neurons_come_back_bit_for_bit_and_native_zeros_are_no_ablation(dim: int) -> None:
    weight = torch.randn(8, 8, dtype=torch.bfloat16)
    neurons = weight.movedim(dim, 0)
    neurons[[2, 6]] = 0
    original = weight.clone()
    switch = _Zeroed(weight, dim)
    assert switch.off() == []
    switch.set([1, 2])
    assert switch.off() == [1, 2]
    assert not neurons[[1, 2, 6]].any()
    neurons[4] = 0  # by someone else
    assert switch.off() == [1, 2, 4]
    neurons[4] = original.movedim(dim, 0)[4]
    neurons[1] = 1
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
    memory = CanaryMemory(0.0)
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
    monkeypatch.setattr(engine, "_memory", CanaryMemory(0.0))
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
