"""What a worker needs of a node, by the size of its model and of the GPUs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster import nodes as module
from cluster.nodes import Nodes, worker_need
from cluster.scheduler import Need, Node
from prunelib.errors import UserError
from prunelib.interventions.ablation import BASELINE
from prunelib.models import ModelInfo
from prunelib.pipeline.units.unit import CanaryJob, EvaluateJob, Prompts, TaskRef, Unit

GIB = 1 << 30
#: Seven billion parameters: 14e9 bytes on disk.
MODEL = ModelInfo("m", "/m", "local", "w", "t", "llama", 32, 8, 14_000_000_000, 4096)
SMALL = replace(MODEL, weights_digest="s", bytes=1_000_000)


def unit(engine: str, info: ModelInfo = MODEL, dtype: str = "bfloat16",
         gpus: int | None = None) -> Unit:
    if engine == "torch":
        prompts = Prompts(TaskRef("t", "d"), "search", 3, 0, (0,), "arrow")
        return Unit(info, CanaryJob(prompts, BASELINE, dtype), tensor_parallel=gpus)
    job = EvaluateJob(TaskRef("t", "d"), 1, 0, 5, 0, "arrow", "greedy", BASELINE,
                      "vllm", dtype)
    return Unit(info, job, tensor_parallel=gpus)


@pytest.mark.parametrize(("engine", "dtype", "gpu", "asked", "gpus"), [
    ("vllm", "bfloat16", 80, None, 1),
    ("vllm", "bfloat16", 12, None, 2),
    ("vllm", "float32", 12, None, 4),
    ("vllm", "bfloat16", 0, None, 1),   # the size is unknown
    ("vllm", "bfloat16", 80, 4, 4),     # the recipe says so
    ("torch", "bfloat16", 12, 4, 1),    # attribution is on one GPU
])
def test_as_few_gpus_as_hold_the_model(
    engine: str, dtype: str, gpu: int, asked: int | None, gpus: int
) -> None:
    assert worker_need(unit(engine, dtype=dtype, gpus=asked), gpu * GIB).gpus == gpus


def test_without_gpus_a_worker_takes_a_cpu_and_memory() -> None:
    need = worker_need(unit("vllm", dtype="float32"), None)
    assert (need.cpus, need.gpus) == (1, 0) and need.memory == 28_000_000_000 + 2 * GIB


def known(*there: Node, gpus: int = 0) -> Nodes:
    made = Nodes(gpus)
    made._known = list(there)
    made.with_gpus = gpus > 0 or any(node.total.gpus for node in there)
    return made


def gpu_node(gpus: int, gib: int) -> Node:
    return Node("n", Need(8, gpus, gpus * gib * GIB), gib * GIB)


@pytest.mark.parametrize(("node", "asked", "message"), [
    (gpu_node(2, 80), 4, "needs 4 GPUs of one node, and the largest node has 2"),
    (gpu_node(8, 12), None, "needs 16 GiB on one GPU for attribution, and a GPU has 12"),
    (Node("n", Need(8, 0, 4 * GIB)), None, "needs 14.0 GiB and a CPU of one node"),
])
def test_what_can_never_run_is_said_before_any_work(
    node: Node, asked: int | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        known(node).check(unit("torch", gpus=asked))


def test_a_cluster_that_scales_is_asked_for_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[dict[str, float]]] = []
    monkeypatch.setattr(module, "request_resources", lambda bundles: asked.append(bundles))
    monkeypatch.setattr(module.ray, "is_initialized", lambda: True)
    made = known(gpus=8)  # it has no node at all yet
    made.check(unit("torch", SMALL))
    made.check(unit("torch", SMALL))
    assert asked == [[{"GPU": 1}] * 8]
    made.check(unit("torch", gpus=4))
    assert asked[1:] == [[{"GPU": 4}] * 2]
    made.release()
    assert asked[2:] == [[]]
