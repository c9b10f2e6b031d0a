"""The log of attempts: what became of every unit, in the table ``units``."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from prunelib.identity import digest
from prunelib.pipeline.units.executor import Attempt
from prunelib.results.storage.store import Store

logger = logging.getLogger(__name__)

#: The log is written out after so many attempts or seconds, whichever is first.
_FLUSH_ATTEMPTS, _FLUSH_SECONDS = 200, 5.0


class AttemptLog:
    """Rows of the table ``units``, written in batches: thousands of attempts, few files."""

    def __init__(self, store: Store, run_id: str, clock: Callable[[], float] = time.monotonic
                 ) -> None:
        self._store, self._run, self._clock = store, run_id, clock
        self._rows: list[dict[str, Any]] = []
        # Kept until it was written: a write that failed may have come through all the same.
        self._name = _name()
        self._flushed = clock()

    def add(self, attempt: Attempt) -> None:
        self._rows.append({
            "run": self._run,
            "unit_id": attempt.unit.id,
            "stage": attempt.unit.stage,
            "model": attempt.unit.model.id,
            "detail": attempt.unit.job.describe(),
            "status": "done" if attempt.done else "failed",
            "worker": attempt.worker,
            "attempt": attempt.attempt,
            "batch_halvings": attempt.batch_halvings,
            "seconds": attempt.seconds,
            "start_seconds": attempt.start_seconds,
            "switch_seconds": attempt.switch_seconds,
            "peak_memory_mb": attempt.peak_memory_mb,
            "gpus": attempt.gpus,
            "error_kind": attempt.error_kind,
            "error_text": attempt.error_text,
            "started_at": attempt.started_at,
            "finished_at": datetime.now(UTC),
        })  # fmt: skip
        late = self._clock() - self._flushed > _FLUSH_SECONDS
        if late or len(self._rows) >= _FLUSH_ATTEMPTS:
            try:
                self.flush()
            except OSError as error:
                logger.warning("the log of attempts waits: %s", error)

    def models(self, known: Mapping[str, str | None]) -> None:
        """Record models that cannot be used, with the reason, and those that can be at last."""
        before = set(self._store.read("units")["unit_id"].to_pylist())
        for name, why in known.items():
            unit_id = f"model-{digest('model', [self._run, name])}"
            if why is None and unit_id not in before:
                continue
            self._rows.append({
                "run": self._run, "unit_id": unit_id, "stage": "model", "model": name,
                "detail": "find the model and check it", "status": "failed" if why else "done",
                "worker": None, "attempt": 1, "batch_halvings": None, "seconds": 0.0,
                "start_seconds": None, "switch_seconds": None, "peak_memory_mb": None,
                "gpus": None, "error_kind": "UserError" if why else None, "error_text": why,
                "started_at": None, "finished_at": datetime.now(UTC),
            })  # fmt: skip

    def flush(self) -> None:
        """Write what was collected."""
        self._flushed = self._clock()
        if self._rows:
            self._store.write("units", self._name, self._rows)
            self._rows, self._name = [], _name()


def _name() -> str:
    return f"attempts-{uuid.uuid4().hex}"
