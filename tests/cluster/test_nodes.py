"""What a worker needs of a node, by the size of its model and of the GPUs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster import nodes as module
from cluster.nodes import Nodes, worker_need
from cluster.scheduler import Kind, Need, Node, kind_of
from prunelib.errors import UserError
from prunelib.interventions.ablation import BASELINE
from prunelib.models import ModelInfo
from prunelib.pipeline.stages.canary import CanaryJob
from prunelib.pipeline.stages.evaluation import EvaluateJob
from prunelib.pipeline.stages.in_context_heads import LabelledJob
from prunelib.pipeline.units.prompts import LabelledPromptsRef, PromptsRef, TaskRef
from prunelib.pipeline.units.unit import Unit

GIB = 1 << 30
#: Seven billion parameters: 14e9 bytes on disk.
MODEL = ModelInfo("m", "/m", "local", "w", "t", "llama", 32, 8, 14_000_000_000, 4096)
SMALL = replace(MODEL, weights_digest="s", bytes=1_000_000)


def unit(engine: str, info: ModelInfo = MODEL, dtype: str = "bfloat16",
         gpus: int | None = None) -> Unit:
    if engine == "torch":
        prompts = PromptsRef(TaskRef("t", "d"), "search", 3, 0, (0,), "arrow")
        return Unit(info, CanaryJob(dtype, prompts, BASELINE), tensor_parallel=gpus)
    job = EvaluateJob(dtype, "vllm", BASELINE, TaskRef("t", "d"), 1, 0, 5, 0, "arrow", "greedy")
    return Unit(info, job, tensor_parallel=gpus)


def test_every_job_of_an_engine_gets_its_gpus() -> None:
    """Also those that ask for one of two labels, of the study of in-context heads."""
    prompts = LabelledPromptsRef(TaskRef("t", "d"), ("a", "b"), "report", 1, (0,), 5, "arrow")
    labelled = Unit(MODEL, LabelledJob("float32", "vllm", BASELINE, prompts))
    evaluated = unit("vllm", dtype="float32")
    assert kind_of(labelled) == kind_of(evaluated) == Kind("vllm", "w")
    assert worker_need(labelled, 12 * GIB).gpus == worker_need(evaluated, 12 * GIB).gpus == 4
    here = replace(labelled, job=replace(labelled.job, engine="transformers"))
    assert kind_of(here) == Kind("torch", "w") and worker_need(here, 12 * GIB).gpus == 4


@pytest.mark.parametrize(("engine", "dtype", "gpu", "asked", "gpus"), [
    ("vllm", "bfloat16", 80, None, 1),
    ("vllm", "bfloat16", 12, None, 2),
    ("vllm", "float32", 12, None, 4),
    ("vllm", "bfloat16", 0, None, 1),   # the size is unknown
    ("vllm", "bfloat16", 80, 4, 4),     # the recipe says so
    ("torch", "bfloat16", 80, None, 1),
    ("torch", "bfloat16", 12, None, 2),
    ("torch", "float32", 13, None, 3),  # layers can be spread over any number
    ("torch", "bfloat16", 80, 4, 4),
    ("torch", "bfloat16", 0, None, 1),
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
    (gpu_node(8, 12), 1, "needs 21 GiB of GPUs for attribution, and 1 of them have 12: set "
                         "tensor_parallel to 2, or leave it out"),
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
