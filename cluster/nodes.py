"""The nodes of the cluster, and what a worker needs of one."""

from __future__ import annotations

import functools
import logging
from typing import Any, get_args

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.memory import gpu_memory
from cluster.scheduler import Need, Node, fits
from prunelib.errors import UserError
from prunelib.pipeline.units import memory
from prunelib.pipeline.units.unit import Unit, WorkerRole

logger = logging.getLogger(__name__)

#: Host memory of a worker's process beside the weights: libraries, activations, an engine's cache.
_HOST_BYTES = {"torch": 1 << 30, "vllm": 2 << 30}


def worker_need(unit: Unit, gpu_bytes: int | None, role: WorkerRole | None = None) -> Need:
    """What a worker for ``unit`` (or for another role) takes; GPUs have ``gpu_bytes`` (0: unknown).

    Without GPUs (``None``) that is one CPU, and memory. With them as few GPUs as hold the model
    (:mod:`prunelib.pipeline.units.memory`), unless the recipe says how many.
    """
    role = role or unit.job.role
    if gpu_bytes is None:
        return Need(cpus=1, memory=memory.weight_bytes(unit.model, unit.job.dtype)
                    + _HOST_BYTES[role])
    wanted = memory.gpu_bytes(unit.model, unit.job.dtype, role)
    return Need(gpus=unit.tensor_parallel or memory.gpus_for(wanted, gpu_bytes, role),
                memory=wanted)


class Nodes:
    """What the cluster has, now and after it was scaled up."""

    def __init__(self, gpus: int = 0) -> None:
        """``gpus`` are asked for from an autoscaling cluster."""
        self._asked = gpus
        self._largest = 0
        self.with_gpus = gpus > 0
        self._known: list[Node] = []
        self._checked: set[str] = set()

    @property
    def gpu_memory(self) -> int:
        """Bytes of the smallest GPU that is known, 0 if none is."""
        return min((node.gpu_memory for node in self._known if node.gpu_memory), default=0)

    def look(self) -> list[Node]:
        """The nodes that are alive, with nothing booked on them yet."""
        alive = [node for node in ray.nodes() if node["Alive"]]
        self.with_gpus = self.with_gpus or any(n["Resources"].get("GPU") for n in alive)
        self._known = [_node(n["NodeID"], n["Resources"], self.with_gpus) for n in alive]
        return self._known

    def check(self, unit: Unit) -> None:
        """Raise :class:`UserError` if the unit's model can never run; ask for nodes it needs."""
        if unit.model.weights_digest in self._checked:
            return
        self._checked.add(unit.model.weights_digest)
        each = self.gpu_memory if self.with_gpus else None
        for role in get_args(WorkerRole):
            need = worker_need(unit, each, role)
            if self._asked:
                self._request(need.gpus)
            elif not any(fits(need, node.total) for node in self._known):
                raise UserError(_too_large(unit, need, self._known))
            elif role == "torch" and each and need.memory > need.gpus * each:
                # One number serves both roles.
                raise UserError(
                    f"model '{unit.model.id}' needs {need.memory / 2**30:.0f} GiB of GPUs for "
                    f"attribution, and {need.gpus} of them have "
                    f"{need.gpus * each / 2**30:.0f}: set tensor_parallel to "
                    f"{memory.gpus_for(need.memory, each, 'vllm')}, or leave it out")

    def _request(self, gpus: int) -> None:
        if gpus > self._largest:
            self._largest = gpus
            request_resources(bundles=[{"GPU": gpus}] * max(1, self._asked // gpus))

    def release(self) -> None:
        """Let an autoscaling cluster release what was asked for."""
        if self._largest and ray.is_initialized():
            request_resources(bundles=[])


def _too_large(unit: Unit, need: Need, nodes: list[Node]) -> str:
    if need.gpus:
        most = max((node.total.gpus for node in nodes), default=0)
        return (f"model '{unit.model.id}' needs {need.gpus} GPUs of one node, and the largest "
                f"node has {most}")
    most = max((node.total.memory for node in nodes), default=0)
    return (f"model '{unit.model.id}' needs {need.memory / 2**30:.1f} GiB and a CPU of one node, "
            f"and the largest node has {most / 2**30:.1f} GiB")


def _node(node_id: str, resources: dict[str, Any], with_gpus: bool) -> Node:
    gpus = int(resources.get("GPU", 0))
    if not with_gpus:
        return Node(node_id, Need(resources.get("CPU", 0.0), 0, int(resources.get("memory", 0))))
    each = _gpu_bytes(node_id) if gpus else 0
    # GPUs whose size is unknown hold anything: whoever is too large for one fails as a row.
    return Node(node_id, Need(resources.get("CPU", 0.0), gpus, gpus * each or 1 << 62), each)


@functools.cache
def _gpu_bytes(node_id: str) -> int:
    """Bytes of the smallest GPU of a node, 0 if it can't be known."""
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    probe = ray.remote(num_cpus=0)(gpu_memory).options(scheduling_strategy=strategy)
    try:
        found = ray.get(probe.remote(), timeout=60)
    except RayError as error:
        logger.warning("the memory of a node's GPUs is unknown: %s", error)
        return 0
    return min((total for total, _ in found), default=0)
