"""Units on Ray: one queue, workers with model affinity, longest first."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.actors import start_worker
from cluster.runtime import connect
from prunelib.errors import EngineDeadError, UserError
from prunelib.pipeline.executor import Attempt
from prunelib.pipeline.units import EvaluateJob, Unit
from prunelib.results.files import open_files

#: How often a unit may take its worker's process down before it fails for good.
MAX_ATTEMPTS = 3


@dataclass(frozen=True, order=True)
class Kind:
    """What a worker process is for: one base model, on torch or in an engine."""

    role: str
    model: str


def kind_of(unit: Unit) -> Kind:
    """Units of one kind can share a worker process; units of two kinds cannot."""
    engine = unit.job.engine if isinstance(unit.job, EvaluateJob) else "torch"
    return Kind("torch" if engine == "transformers" else engine, unit.model.weights_digest)


@dataclass
class _Queue:
    """Pending units of one kind: ablations stay together in an engine, else longest first."""

    order: itertools.count[int]
    heap: list[tuple[float, int, int, Unit]] = field(default_factory=list)

    def push(self, unit: Unit, attempt: int) -> None:
        heapq.heappush(self.heap, (-unit.cost, next(self.order), attempt, unit))

    def pop(self) -> tuple[int, Unit]:
        _, _, attempt, unit = heapq.heappop(self.heap)
        return attempt, unit

    @property
    def cost(self) -> float:
        return sum(-entry[0] for entry in self.heap)


@dataclass
class _Worker:
    kind: Kind
    handle: Any
    resources: dict[str, float]
    task: Any = None
    unit: Unit | None = None
    attempt: int = 0


class RayExecutor:
    """Performs units in Ray actors: one GPU each where there are GPUs, else one CPU each.

    A worker keeps its base model as long as there is work for it; for another model its process
    is replaced, because nothing else gives memory back reliably. Workers commit their own
    results; a worker that dies costs one attempt at one unit.
    """

    def __init__(
        self, results: str | Path, address: str | None = None, workers: int | None = None
    ) -> None:
        """Prepare to work on ``results``, with at most ``workers`` processes if given."""
        self._results = open_files(results).location
        self._address = address
        self._limit = workers
        self._queues: dict[Kind, _Queue] = {}
        self._workers: list[_Worker] = []
        self._order = itertools.count()

    def submit(self, unit: Unit) -> None:
        """Queue a unit. The first one connects to Ray, so a finished run never starts it."""
        connect(self._address)
        self._push(unit, 1)

    def wait(self) -> Attempt:
        """Hand out what can be handed out, then wait for one attempt to end."""
        while True:
            self._dispatch()
            busy = {worker.task: worker for worker in self._workers if worker.task is not None}
            ready, _ = ray.wait(list(busy), num_returns=1, timeout=60)
            if ready:
                return self._collect(busy[ready[0]])

    def close(self) -> None:
        """Stop every worker."""
        for worker in list(self._workers):
            self._retire(worker)

    def _push(self, unit: Unit, attempt: int) -> None:
        self._queues.setdefault(kind_of(unit), _Queue(self._order)).push(unit, attempt)

    def _dispatch(self) -> None:
        for worker in [w for w in self._workers if w.task is None]:
            queue = self._queues.get(worker.kind)
            if queue and queue.heap:
                self._hand(worker, queue)
        while any(queue.heap for queue in self._queues.values()):
            kind = max(
                (k for k, q in self._queues.items() if q.heap),
                key=lambda k: self._queues[k].cost / (1 + self._count(k)),
            )
            resources = self._needs(self._queues[kind].heap[0][3])
            if not self._make_room(resources):
                return
            worker = _Worker(kind, start_worker(self._results, resources), resources)
            self._workers.append(worker)
            self._hand(worker, self._queues[kind])

    def _hand(self, worker: _Worker, queue: _Queue) -> None:
        worker.attempt, worker.unit = queue.pop()
        worker.task = worker.handle.perform.remote(worker.unit, worker.attempt)

    def _count(self, kind: Kind) -> int:
        return sum(worker.kind == kind for worker in self._workers)

    def _needs(self, unit: Unit) -> dict[str, float]:
        total = ray.cluster_resources()
        if not total.get("GPU"):
            return {"CPU": 1.0}
        wanted = float(unit.job.tensor_parallel) if isinstance(unit.job, EvaluateJob) else 1.0
        if wanted > total["GPU"]:
            raise UserError(f"model '{unit.model.id}' asks for tensor_parallel: {wanted:.0f}, and "
                            f"the cluster has {total['GPU']:.0f} GPUs")
        return {"GPU": wanted}

    def _make_room(self, resources: dict[str, float]) -> bool:
        """Whether ``resources`` are free, after idle workers of finished kinds were retired."""
        if self._limit is not None and self._limit <= sum(w.task is not None
                                                          for w in self._workers):
            return False
        ((name, wanted),) = resources.items()
        total = ray.cluster_resources().get(name, 0.0)
        for idle in [*(w for w in self._workers if w.task is None), None]:
            used = sum(worker.resources.get(name, 0.0) for worker in self._workers)
            if used + wanted <= total:
                return True
            if idle is not None:
                self._retire(idle)
        return False

    def _retire(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        ray.kill(worker.handle)

    def _collect(self, worker: _Worker) -> Attempt:
        task, unit = worker.task, worker.unit
        assert unit is not None  # noqa: S101
        worker.task = worker.unit = None
        try:
            attempt: Attempt = ray.get(task)
        except RayError as error:
            kind, text = type(error).__name__, str(error).strip()[:2000]
            attempt = Attempt(unit, "lost", worker.attempt, 0.0, 0.0, kind, text)
            self._retire(worker)
        else:
            if attempt.error_kind != EngineDeadError.__name__:
                return attempt
            self._retire(worker)
        if worker.attempt >= MAX_ATTEMPTS:
            return attempt
        self._push(unit, worker.attempt + 1)
        return Attempt(unit, attempt.worker, worker.attempt, attempt.seconds,
                       attempt.peak_memory_mb, attempt.error_kind, attempt.error_text, again=True)
