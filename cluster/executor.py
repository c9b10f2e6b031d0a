"""Units on Ray: carries out what the scheduler decides, and copes with whatever dies."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnschedulableError, OutOfMemoryError, RayError

from cluster.actors import start_worker
from cluster.metrics import Metrics
from cluster.nodes import Nodes, worker_need
from cluster.runtime import connect
from cluster.scheduler import Hand, Kind, Need, Scheduler, Slot, Start, Work
from prunelib.errors import EngineDeadError
from prunelib.pipeline.units.executor import Attempt
from prunelib.pipeline.units.unit import Unit
from prunelib.results.storage.files import open_files

logger = logging.getLogger(__name__)

#: How often a unit may take its worker's process down before it fails for good.
MAX_ATTEMPTS = 3
#: How many workers of one kind may die one after the other without any unit done: then nothing
#: of that kind is tried any more (a model that no engine can load costs minutes, not the night).
MAX_DEATHS = 4
#: Seconds after which a worker that says nothing counts as hung, unless units of its kind are
#: known to take long: then this many times the longest.
HUNG_SECONDS, HUNG_TIMES = 1800.0, 20.0
#: Seconds for which work waits for a node that is large enough (a lost one may come back).
UNPLACEABLE_SECONDS = 900.0
#: Seconds for which a node gets no new worker after one could not be started there, at first and
#: at most: it takes Ray a while to see that a node is gone.
HOLD_SECONDS = (5.0, 60.0)
#: Seconds between looks at nodes and hung workers.
_LOOK_SECONDS = 2.0


@dataclass
class _Process:
    """The actor behind a slot, what is awaited from it, and its name once it is up."""

    handle: Any
    awaited: Any
    name: str = "starting"


class RayExecutor:
    """Performs units in Ray actors, on GPUs where there are any, else on one CPU each.

    Workers commit their own results. A worker that dies costs one attempt at one unit; the unit
    is given to another with a reason. Nodes may come and go.
    """

    def __init__(
        self, results: str | Path, address: str | None = None, workers: int | None = None,
        gpus: int = 0,
    ) -> None:
        """Prepare to work on ``results``.

        Args:
            results: location of the results, the same on every node.
            address: of a Ray cluster; by default Ray starts on this machine.
            workers: the most processes at a time.
            gpus: GPUs to ask an autoscaling cluster for, which may have none at first.
        """
        self._results = open_files(results).location
        self._address = address
        self._nodes = Nodes(gpus)
        self._scheduler = Scheduler(self._need, workers)
        self._processes: dict[Slot, _Process] = {}
        self._ended: deque[Attempt] = deque()
        self._looked = 0.0
        self._names: dict[str, str] = {}
        self._shown: set[Kind] = set()
        self._unplaceable: dict[Kind, float] = {}
        self._deaths: dict[Kind, tuple[int, float]] = {}
        self._holds: dict[str, tuple[float, float]] = {}
        self._longest: dict[Kind, float] = {}

    def submit(self, unit: Unit) -> None:
        """Queue a unit. The first one connects to Ray, so a finished run never starts it.

        Raises:
            UserError: no cluster, or none whose nodes can ever hold the unit's model.
        """
        if not self._looked:
            connect(self._address)
            self._metrics = Metrics()
            self._look()
        self._names[unit.model.weights_digest] = unit.model.id
        self._nodes.check(unit)
        self._scheduler.add(Work(unit))

    def wait(self, timeout: float | None = None) -> Attempt | None:
        """Hand out what can be handed out, then wait until an attempt ends or time is up."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self._ended:
            if time.monotonic() - self._looked > _LOOK_SECONDS:
                self._look()
            self._act()
            left = _LOOK_SECONDS if until is None else min(_LOOK_SECONDS, until - time.monotonic())
            if left <= 0:
                return None
            self._gather(left)
        attempt = self._ended.popleft()
        self._metrics.attempt(attempt)
        return attempt

    def withdraw(self) -> list[Unit]:
        """Take back every unit that no worker has begun."""
        return [work.unit for work in self._scheduler.drop()]

    def close(self) -> None:
        """Stop every worker, and let go of nodes that were asked for."""
        for slot in list(self._processes):
            self._scheduler.gone(slot)
            self._end(slot)
        self._nodes.release()

    def _need(self, unit: Unit) -> Need:
        return worker_need(unit, self._nodes.gpu_memory if self._nodes.with_gpus else None)

    def _act(self) -> None:
        for action in self._scheduler.decide(time.monotonic()):
            slot = action.slot
            if isinstance(action, Start):
                handle = start_worker(self._results, slot.need, slot.node)
                self._processes[slot] = _Process(handle, handle.ready.remote())
            elif isinstance(action, Hand):
                process, work = self._processes[slot], action.work
                unit = work.unit
                if slot.need.gpus:
                    unit = replace(unit, tensor_parallel=slot.need.gpus)
                process.awaited = process.handle.perform.remote(
                    unit, work.attempt, work.batch_halvings)
            else:
                self._end(slot)

    def _gather(self, seconds: float) -> None:
        """Take in everything that ended, waiting for the first."""
        awaited = {process.awaited: slot for slot, process in self._processes.items()
                   if slot.state != "idle"}
        if not awaited:
            time.sleep(min(seconds, 0.5))
            return
        ready, _ = ray.wait(list(awaited), num_returns=len(awaited), timeout=0)
        if not ready:
            ready, _ = ray.wait(list(awaited), num_returns=1, timeout=seconds)
        for reference in ready:
            self._collect(awaited[reference], reference)

    def _collect(self, slot: Slot, reference: Any) -> None:
        now = time.monotonic()
        try:
            reply = ray.get(reference)
        except RayError as error:
            self._lose(slot, type(error).__name__, str(error).strip()[:2000],
                       memory=isinstance(error, OutOfMemoryError))
            return
        if slot.state == "starting":
            self._processes[slot].name = reply
            self._holds.pop(slot.node, None)
            self._scheduler.ready(slot, now)
            return
        attempt: Attempt = reply
        if attempt.error_kind == EngineDeadError.__name__:
            self._lose(slot, attempt.error_kind, attempt.error_text or "", attempt)
            return
        self._longest[slot.kind] = max(attempt.seconds, self._longest.get(slot.kind, 0.0))
        self._deaths.pop(slot.kind, None)
        self._scheduler.finished(slot, now)
        self._ended.append(attempt)

    def _lose(self, slot: Slot, error: str, text: str, attempt: Attempt | None = None,
              memory: bool = False) -> None:
        """A worker is of no use any more: its unit goes to another, up to a limit."""
        if slot.state == "starting":
            self._hold(slot.node)
        work, name = self._scheduler.gone(slot), self._processes[slot].name
        self._end(slot)
        if work is not None:
            again = work.attempt < MAX_ATTEMPTS
            lost = attempt or Attempt(work.unit, name, work.attempt, time.monotonic()
                                      - slot.since, 0.0, error, text, gpus=slot.need.gpus)
            self._ended.append(replace(lost, unit=work.unit, again=again))
            if again:
                self._scheduler.add(Work(work.unit, work.attempt + 1, work.batch_halvings + memory))
        logger.warning("lost worker %s (%s): %s: %s", name, slot.kind.role, error, text[:200])
        # Workers that were up together and died together are one event: a node, say. Those that
        # Ray could not even place say nothing about their kind.
        deaths, last = self._deaths.get(slot.kind, (0, 0.0))
        if slot.born > last and error != ActorUnschedulableError.__name__:
            self._deaths[slot.kind] = (deaths + 1, time.monotonic())
            if deaths + 1 >= MAX_DEATHS:
                self._give_up(slot.kind, error, f"given up, since {deaths + 1} workers in a row "
                              f"died before they finished anything; the last one: {text}")

    def _hold(self, node: str) -> None:
        """Start nothing on a node for a while, the longer the more often it went wrong there."""
        first, most = HOLD_SECONDS
        _, before = self._holds.get(node, (0.0, 0.0))
        seconds = min(most, 2 * before or first)
        self._holds[node] = (time.monotonic() + seconds, seconds)
        self._looked = -_LOOK_SECONDS  # the next decision has to know

    def _give_up(self, kind: Kind, error: str, text: str) -> None:
        """All pending units of a kind fail at once."""
        self._deaths.pop(kind, None)
        self._ended.extend(Attempt(work.unit, "none", work.attempt, 0.0, 0.0, error, text)
                           for work in self._scheduler.drop(kind))

    def _end(self, slot: Slot) -> None:
        ray.kill(self._processes.pop(slot).handle)

    def _look(self) -> None:
        """See which nodes there are, who is hung, and what waits in vain."""
        self._looked = now = time.monotonic()
        alive = self._nodes.look()
        self._scheduler.set_nodes([n for n in alive if self._holds.get(n.id, (0.0,))[0] < now])
        there = {node.id for node in alive}
        for slot in [s for s in self._processes if s.state == "idle" and s.node not in there]:
            self._scheduler.gone(slot)
            self._end(slot)
        for slot in list(self._processes):
            patience = max(HUNG_SECONDS, HUNG_TIMES * self._longest.get(slot.kind, 0.0))
            if slot.state != "idle" and now - slot.since > patience:
                self._lose(slot, "Hung", f"no answer for {now - slot.since:.0f} s")
        self._show()
        unplaceable = self._scheduler.unplaceable()
        self._unplaceable = {kind: self._unplaceable.get(kind, now) for kind in unplaceable}
        for kind, since in self._unplaceable.items():
            if now - since > UNPLACEABLE_SECONDS:
                self._give_up(kind, "NoNode", "no node that is large enough was there for "
                              f"{now - since:.0f} s")

    def _show(self) -> None:
        """Tell Prometheus how long the queues are and what the workers do."""
        queued = self._scheduler.queued()
        for kind in self._shown | queued.keys():
            self._metrics.queued(kind.role, self._names[kind.model], queued.get(kind, 0))
        self._shown |= queued.keys()
        for state in ("starting", "idle", "busy"):
            self._metrics.workers(state, sum(s.state == state for s in self._processes))
