"""The one kind of actor: a worker that performs units and commits their files itself."""

from __future__ import annotations

import os
from typing import Any

import ray

from prunelib.pipeline.executor import Attempt, attempt
from prunelib.pipeline.units import Unit


@ray.remote(max_restarts=0, max_task_retries=0)
class WorkerActor:
    """Performs units one after the other. Its process holds one base model, and dies with it."""

    def __init__(self, results: str) -> None:
        # Heavy imports happen with the first unit: an actor is up before it loads anything.
        from prunelib.pipeline.work import Worker
        from prunelib.results.store import Store

        self._worker = Worker(Store.open(results))
        self._name = f"{ray.util.get_node_ip_address()}:{os.getpid()}"

    def perform(self, unit: Unit, number: int) -> Attempt:
        """One attempt at a unit; errors come back as an attempt that failed."""
        return attempt(self._worker, unit, self._name, number)


def start_worker(results: str, resources: dict[str, float]) -> Any:
    """A new worker process on a node that has ``resources`` (``CPU``, ``GPU``) to spare."""
    options = {"num_cpus": resources.get("CPU", 0), "num_gpus": resources.get("GPU", 0)}
    return WorkerActor.options(**options).remote(results)  # type: ignore[attr-defined]
