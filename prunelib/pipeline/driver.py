"""Running a recipe: the driver hands units to an executor and records what became of them."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from prunelib.config import Recipe
from prunelib.errors import UserError
from prunelib.identity import digest
from prunelib.models import ModelInfo, describe
from prunelib.pipeline.executor import Attempt, Executor, InlineExecutor
from prunelib.pipeline.provenance import code_version, hardware, packages
from prunelib.pipeline.stages import ModelRun
from prunelib.pipeline.units import Unit
from prunelib.pipeline.work import Worker
from prunelib.results.store import Store

logger = logging.getLogger(__name__)

#: The log of attempts is written out after so many attempts or seconds, whichever is first.
_FLUSH_ATTEMPTS, _FLUSH_SECONDS = 200, 5.0


class Reporter(Protocol):
    """Who is told how a run goes (progress bars, log lines)."""

    def stage(self, model: str, stage: str, units: int, done: int) -> None:
        """A stage of a model begins: ``done`` of its ``units`` were there already."""
        ...

    def attempt(self, attempt: Attempt) -> None:
        """An attempt ended."""
        ...


class _Silent:
    def stage(self, model: str, stage: str, units: int, done: int) -> None: ...

    def attempt(self, attempt: Attempt) -> None: ...


@dataclass(frozen=True)
class RunReport:
    """How a run ended."""

    run: str
    results: str
    units_done: int
    units_reused: int
    failed: list[Attempt] = field(default_factory=list)


def prepare(recipe: Recipe) -> list[ModelInfo]:
    """Find every model of a recipe and check the recipe against it. Raises :class:`UserError`."""
    infos = []
    for spec in recipe.models:
        info = describe(spec.id, spec.revision)
        layers = recipe.search.layers
        missing = [] if layers == "all" else [i for i in layers if i >= info.layers]
        if missing:
            raise UserError(f"search.layers: model '{info.id}' has layers 0 to {info.layers - 1}, "
                            f"not {missing[0]}")
        infos.append(info)
    ids = [info.id for info in infos]
    if len(set(ids)) < len(ids):
        raise UserError("models: the same model is listed twice")
    return infos


def run(
    recipe: Recipe,
    results: str | Path,
    executor: Executor | None = None,
    reporter: Reporter | None = None,
) -> RunReport:
    """Run a recipe and return how it ended; finished units are not done again.

    Args:
        recipe: what to run.
        results: folder of the results or s3://bucket/prefix, made if it is not there.
        executor: who performs the units; by default this process, one after the other.
        reporter: who is told about progress.

    Raises:
        UserError: for anything the user can fix, before any work starts.
    """
    infos = prepare(recipe)
    store = Store.open(results)
    own = executor is None
    executor = executor or InlineExecutor(lambda: Worker(store))
    driver = _Driver(recipe, store, executor, reporter or _Silent())
    try:
        return driver.run(infos)
    finally:
        driver.log.flush()
        if own:
            executor.close()


class _Driver:
    def __init__(self, recipe: Recipe, store: Store, executor: Executor, reporter: Reporter
                 ) -> None:
        self.recipe = recipe
        self.store = store
        self.executor = executor
        self.reporter = reporter
        self.log = _AttemptLog(store, recipe.run_id)
        self.done = self.reused = 0
        self.failed: list[Attempt] = []
        self._linked: set[str] = set()

    def run(self, infos: list[ModelInfo]) -> RunReport:
        started = datetime.now(UTC)
        self._record_run(started, "running")
        runs = [ModelRun(self.recipe, spec, info, self.store)
                for spec, info in zip(self.recipe.models, infos, strict=True)]
        progress = {model.info.id: (model, model.stages()) for model in runs}
        outstanding: dict[str, set[str]] = {}
        status = "interrupted"
        try:
            for name, (model, steps) in list(progress.items()):
                outstanding[name] = self._advance(model, steps)
            while any(outstanding.values()):
                attempt = self.executor.wait()
                name = attempt.unit.model.id
                self._note(attempt)
                if attempt.again:
                    continue
                outstanding[name].discard(attempt.unit.id)
                if not outstanding[name]:
                    outstanding[name] = self._advance(*progress[name])
            status = "failed" if self.failed else "done"
        finally:
            self._record_run(started, status)
        return RunReport(self.recipe.run_id, self.store.location, self.done, self.reused,
                         self.failed)

    def _advance(self, model: ModelRun, steps: Iterator[list[Unit]]) -> set[str]:
        """Go on with a model until a stage has something to do; return the ids it waits for."""
        name = model.info.id
        while not any(a.unit.model.id == name and a.unit.stage != "evaluate" for a in self.failed):
            units = next(steps, None)
            self._link(model, units or [])
            if units is None:
                return set()
            there = self.store.done(units[0].table)
            todo = [unit for unit in units if unit.id not in there]
            self.reused += len(units) - len(todo)
            self.reporter.stage(name, units[0].stage, len(units), len(units) - len(todo))
            for unit in sorted(todo, key=lambda u: -u.cost):
                self.executor.submit(unit)
            if todo:
                return {unit.id for unit in todo}
        return set()

    def _note(self, attempt: Attempt) -> None:
        self.log.add(attempt)
        self.reporter.attempt(attempt)
        if attempt.done:
            self.done += 1
        elif not attempt.again:
            self.failed.append(attempt)

    def _link(self, model: ModelRun, units: list[Unit]) -> None:
        """Record which files belong to this run."""
        files = [(unit_id, stage) for _, unit_id, stage in model.files]
        files += [(unit.id, unit.stage) for unit in units]
        rows = [{"run": self.recipe.run_id, "unit_id": unit_id, "stage": stage,
                 "model": model.info.id} for unit_id, stage in files if unit_id not in self._linked]
        self._linked.update(unit_id for unit_id, _ in files)
        if rows:
            link = f"link-{digest('link', rows)}"
            if not self.store.has("run_units", link):
                self.store.write("run_units", link, rows)

    def _record_run(self, started: datetime, status: str) -> None:
        self.store.write("runs", f"run-{digest('run', self.recipe.run_id)}", [{
            "run": self.recipe.run_id,
            "started": started,
            "finished": None if status == "running" else datetime.now(UTC),
            "status": status,
            "recipe": self.recipe.model_dump_json(exclude_unset=True),
            "resolved": self.recipe.model_dump_json(),
            "code_version": code_version(),
            "packages": json.dumps(packages()),
            "hardware": json.dumps(hardware()),
            "units_done": self.done + self.reused,
            "units_failed": len(self.failed),
        }])  # fmt: skip


class _AttemptLog:
    """Rows of the table ``units``, written in batches: thousands of attempts, few files."""

    def __init__(self, store: Store, run_id: str, clock: Callable[[], float] = time.monotonic
                 ) -> None:
        self._store, self._run, self._clock = store, run_id, clock
        self._rows: list[dict[str, Any]] = []
        self._flushed = clock()

    def add(self, attempt: Attempt) -> None:
        self._rows.append({
            "run": self._run,
            "unit_id": attempt.unit.id,
            "stage": attempt.unit.stage,
            "model": attempt.unit.model.id,
            "detail": attempt.unit.detail,
            "status": "done" if attempt.done else "failed",
            "worker": attempt.worker,
            "attempt": attempt.attempt,
            "seconds": attempt.seconds,
            "peak_memory_mb": attempt.peak_memory_mb,
            "error_kind": attempt.error_kind,
            "error_text": attempt.error_text,
            "finished_at": datetime.now(UTC),
        })  # fmt: skip
        late = self._clock() - self._flushed > _FLUSH_SECONDS
        if late or len(self._rows) >= _FLUSH_ATTEMPTS:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        rows, self._rows, self._flushed = self._rows, [], self._clock()
        if rows:
            self._store.write("units", f"attempts-{uuid.uuid4().hex}", rows)
