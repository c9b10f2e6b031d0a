"""The one kind of actor: a worker that performs units and commits their files itself."""

from __future__ import annotations

import os
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.memory import wait_until_free
from cluster.scheduler import Need
from prunelib.pipeline.units.executor import Attempt, attempt
from prunelib.pipeline.units.unit import Unit


@ray.remote(max_restarts=0, max_task_retries=0)
class WorkerActor:
    """Performs units one after the other. Its process holds one base model, and dies with it."""

    def __init__(self, results: str, memory: int) -> None:
        # Heavy imports happen with the first unit: an actor is up before it loads anything.
        from prunelib.pipeline.units.worker import Worker
        from prunelib.results.storage.files import open_files
        from prunelib.results.storage.store import Store

        wait_until_free(memory)
        # Not opened: the driver did that, and a place may be out of reach for a while.
        self._worker = Worker(Store(open_files(results)))
        self._name = f"{ray.util.get_node_ip_address()}:{os.getpid()}"

    def ready(self) -> str:
        """Who this is, as soon as it is up."""
        return self._name

    def perform(self, unit: Unit, number: int, batch_halvings: int) -> Attempt:
        """One attempt at a unit; errors come back as an attempt that failed."""
        return attempt(self._worker, unit, self._name, number, batch_halvings)


def start_worker(results: str, need: Need, node: str) -> Any:
    """A new worker process on a node (its Ray id), where ``need`` is free."""
    options = {"num_cpus": need.cpus, "num_gpus": need.gpus,
               "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}
    return WorkerActor.options(**options).remote(results, need.memory)  # type: ignore[attr-defined]
