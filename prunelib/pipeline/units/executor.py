"""Executors: where units run. The same units, ids and files come out of every executor."""

from __future__ import annotations

import resource
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from prunelib.errors import EngineDeadError
from prunelib.pipeline.units.unit import Unit
from prunelib.pipeline.units.worker import Worker


@dataclass(frozen=True)
class Attempt:
    """How one attempt at a unit ended; a row of the table ``units``."""

    unit: Unit
    worker: str
    attempt: int
    seconds: float
    peak_memory_mb: float
    error_kind: str | None = None
    error_text: str | None = None
    #: The unit will be tried again: this attempt is not its last word.
    again: bool = False
    #: How often the unit's batches were halved because memory ran out.
    batch_halvings: int = 0
    #: Seconds of ``seconds`` in which an engine was started, None if none was.
    start_seconds: float | None = None
    #: Seconds of ``seconds`` in which a live engine was switched, None if it was not.
    switch_seconds: float | None = None
    #: When it began, None of a worker that died; and GPUs that its worker held.
    started_at: datetime | None = None
    gpus: int | None = None

    @property
    def done(self) -> bool:
        """Whether the unit's file is there."""
        return self.error_kind is None


class Executor(Protocol):
    """Takes units in, gives attempts out, in any order."""

    def submit(self, unit: Unit) -> None:
        """Queue a unit. Its output is committed by whoever performs it."""
        ...

    def wait(self, timeout: float | None = None) -> Attempt | None:
        """Block until an attempt ended, or for ``timeout`` seconds; then ``None``.

        Call only while units are outstanding.
        """
        ...

    def withdraw(self) -> list[Unit]:
        """Take back every unit that nobody has begun."""
        ...

    def close(self) -> None:
        """Stop all workers."""
        ...


def attempt(worker: Worker, unit: Unit, name: str, number: int, batch_halvings: int = 0) -> Attempt:
    """Perform a unit; an error becomes a row and never an exception.

    Only a dead engine is worth another attempt: everything else would fail again.
    """
    started_at, started = datetime.now(UTC), time.monotonic()
    kind = text = None
    try:
        batch_halvings = worker.perform(unit, batch_halvings)
    except Exception as error:
        kind, text = type(error).__name__, str(error).strip()[:2000] or repr(error)
        if isinstance(error, EngineDeadError):
            worker.forget()
    return Attempt(unit, name, number, time.monotonic() - started, _peak_memory(), kind, text,
                   batch_halvings=batch_halvings, start_seconds=worker.start_seconds,
                   switch_seconds=worker.switch_seconds, started_at=started_at, gpus=_gpus(unit))


def _gpus(unit: Unit) -> int:
    """GPUs of this process that a unit's model is spread over."""
    import torch

    return min(torch.cuda.device_count(), unit.tensor_parallel or 1)


def _peak_memory() -> float:
    """Peak resident memory of this process in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / (1 << 10)


class InlineExecutor:
    """Everything in this process, one unit after the other: for tests and debugging."""

    def __init__(self, make_worker: Callable[[], Worker]) -> None:
        self._worker = make_worker()
        self._queue: deque[Unit] = deque()

    def submit(self, unit: Unit) -> None:
        self._queue.append(unit)

    def wait(self, timeout: float | None = None) -> Attempt | None:
        """Perform the next unit, however long it takes."""
        return attempt(self._worker, self._queue.popleft(), "inline", 1)

    def withdraw(self) -> list[Unit]:
        units = list(self._queue)
        self._queue.clear()
        return units

    def close(self) -> None:
        self._worker.forget()
