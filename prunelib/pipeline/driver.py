"""Running a recipe: the driver hands units to an executor and records what became of them."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pyarrow.compute as pc

from prunelib.engines.registry import check_engine, choose_engine
from prunelib.errors import UserError
from prunelib.identity import digest
from prunelib.models import ModelInfo, adapter_for, describe
from prunelib.pipeline.provenance import code_version, hardware, packages
from prunelib.pipeline.stages.attribution import check_attribution
from prunelib.pipeline.stages.in_context_heads import check_in_context
from prunelib.pipeline.stages.registry import stages
from prunelib.pipeline.units.executor import Attempt, Executor, InlineExecutor
from prunelib.pipeline.units.model_run import ModelRun, finished
from prunelib.pipeline.units.unit import Unit
from prunelib.pipeline.units.worker import Worker
from prunelib.recipe.recipe import Recipe
from prunelib.results.storage.files import reason
from prunelib.results.storage.store import Store

logger = logging.getLogger(__name__)

#: The log of attempts is written out after so many attempts or seconds, whichever is first.
_FLUSH_ATTEMPTS, _FLUSH_SECONDS = 200, 5.0
#: Seconds between signs of life of a run, in the column ``heartbeat`` of the table ``runs``.
HEARTBEAT = 30.0


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
    """How a run ended.

    Attributes:
        failed: the last attempt at every unit that failed for good.
        left: (model, stage) → units for which there was no time before the deadline; a stage
            that was never reached is not among them, but comes after one that is.
        stopped: model → why the driver could not go on with it.
        skipped: model → parts of the recipe that it cannot give, each with the reason.
    """

    run: str
    results: str
    units_done: int
    units_reused: int
    failed: list[Attempt] = field(default_factory=list)
    left: Counter[tuple[str, str]] = field(default_factory=Counter)
    stopped: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether everything that the recipe asks for is there."""
        return not (self.failed or self.left or self.stopped or self.skipped)


def prepare(recipe: Recipe, elsewhere: bool = False) -> list[ModelInfo]:
    """Find every model of a recipe and check the recipe against it. Raises :class:`UserError`.

    ``elsewhere``: it will run on other machines than this one, with engines and GPUs of their own.
    """
    infos = []
    for spec in recipe.models:
        info = describe(spec.id, spec.revision, spec.trust_remote_code)
        check_engine(recipe.engine, info, elsewhere)
        layers = recipe.search.layers
        missing = [] if layers == "all" else [i for i in layers if i >= info.layers]
        if missing:
            raise UserError(f"search.layers: model '{info.id}' has layers 0 to {info.layers - 1}, "
                            f"not {missing[0]}")
        check_attribution(recipe, info)
        for section in ("importance", "in_context_heads"):
            if getattr(recipe, section) and "head" not in adapter_for(info.model_type).sites:
                raise UserError(f"{section}: model '{info.id}' ({info.model_type}) has no "
                                "attention heads")
        if recipe.in_context_heads:
            check_in_context(recipe, recipe.in_context_heads, info)
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
        UserError: for anything the user can fix, before any work starts; or the results were
            out of reach for longer than is waited.
    """
    infos = prepare(recipe)
    for info in infos:
        choose_engine(recipe.engine, info)  # else it would stop the model after its search
    store = Store.open(results)
    own = executor is None
    executor = executor or InlineExecutor(lambda: Worker(store))
    driver = _Driver(recipe, store, executor, reporter or _Silent())
    try:
        try:
            return driver.run(infos)
        finally:
            driver.log.flush()
    except OSError as error:
        raise UserError(f"results at {store.location} are out of reach: {reason(error)}; "
                        "run it again to go on") from error
    finally:
        if own:
            executor.close()


class _Driver:
    def __init__(self, recipe: Recipe, store: Store, executor: Executor, reporter: Reporter
                 ) -> None:
        self.run_id = recipe.run_id
        self.given = recipe
        self.recipe = recipe.pinned()  # its run id would be another
        self.store = store
        self.executor = executor
        self.reporter = reporter
        self.log = _AttemptLog(store, self.run_id)
        self.done = self.reused = 0
        self.failed: list[Attempt] = []
        self.left: Counter[tuple[str, str]] = Counter()
        self.stopped: dict[str, str] = {}
        self.skipped: dict[str, list[str]] = {}
        self.started = datetime.now(UTC)
        self.deadline = recipe.deadline_after(self.started)
        #: Units that are linked to the run, by this driver or one before it.
        self._linked: set[str] = set()

    def run(self, infos: list[ModelInfo]) -> RunReport:
        self._record_run("running")
        links = self.store.read("run_units")
        self._linked = set(links.filter(pc.equal(links["run"], self.run_id))
                           ["unit_id"].to_pylist())
        runs = [ModelRun(self.recipe, spec, info, self.store)
                for spec, info in zip(self.recipe.models, infos, strict=True)]
        progress = {model.info.id: (model, stages(model)) for model in runs}
        outstanding: dict[str, set[str]] = {}
        status = "interrupted"
        try:
            for name, (model, steps) in list(progress.items()):
                outstanding[name] = self._advance(model, steps)
            for attempt in self._attempts(outstanding):
                name = attempt.unit.model.id
                self._note(attempt)
                if attempt.again:
                    continue
                outstanding[name].discard(attempt.unit.id)
                if not outstanding[name]:
                    outstanding[name] = self._advance(*progress[name])
            failed = self.failed or self.stopped or self.skipped
            status = "failed" if failed else "deadline" if self.left else "done"
        finally:
            self._record_run(status)
        return RunReport(self.run_id, self.store.location, self.done, self.reused,
                         self.failed, self.left, self.stopped, self.skipped)

    def _attempts(self, outstanding: dict[str, set[str]]) -> Iterator[Attempt]:
        """Attempts as they end, until nothing is outstanding; from the deadline on, nothing new."""
        beat = time.monotonic()
        while any(outstanding.values()):
            if time.monotonic() - beat > HEARTBEAT:
                beat = time.monotonic()
                self._record_run("running")
            if self._late():
                for unit in self.executor.withdraw():
                    self.left[unit.model.id, unit.stage] += 1
                    outstanding[unit.model.id].discard(unit.id)
                if not any(outstanding.values()):
                    return
            attempt = self.executor.wait(HEARTBEAT / 10)
            if attempt is not None:
                yield attempt

    def _late(self) -> bool:
        return self.deadline is not None and datetime.now(UTC) >= self.deadline

    def _advance(self, model: ModelRun, steps: Iterator[list[Unit]]) -> set[str]:
        """Go on with a model until a stage has something to do; return the ids it waits for."""
        name = model.info.id
        while not self._incomplete(name):
            try:
                units = next(steps)
            except StopIteration:
                self._link(model, [])
                if model.skipped:
                    self.skipped[name] = model.skipped
                return set()
            except Exception as error:  # what a model's files say, or that they can't be read
                logger.warning("%s: %s: %s", name, type(error).__name__, error,
                               exc_info=not isinstance(error, UserError))
                self.stopped[name] = f"{type(error).__name__}: {error}"
                return set()
            self._link(model, units)
            there = finished(self.store, units)
            todo = [unit for unit in units if unit.id not in there]
            self.reused += len(units) - len(todo)
            asked, left = (Counter(unit.stage for unit in some) for some in (units, todo))
            for stage, count in asked.items():
                self.reporter.stage(name, stage, count, count - left[stage])
            if todo and self._late():
                self.left[name, todo[0].stage] += len(todo)
                return set()
            for unit in sorted(todo, key=lambda u: -u.cost):
                self.executor.submit(unit)
            if todo:
                return {unit.id for unit in todo}
        return set()

    def _incomplete(self, name: str) -> bool:
        """Whether a stage that others build on lacks units, for good or for lack of time."""
        return any(model == name for model, _ in self.left) or any(
            a.unit.model.id == name and a.unit.stage != "evaluate" for a in self.failed)

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
        rows = [{"run": self.run_id, "unit_id": unit_id, "stage": stage,
                 "model": model.info.id} for unit_id, stage in files
                if unit_id not in self._linked]
        self._linked.update(unit_id for unit_id, _ in files)
        if rows:
            self.store.write("run_units", f"link-{digest('link', rows)}", rows)

    def _record_run(self, status: str) -> None:
        self.store.write("runs", f"run-{digest('run', self.run_id)}", [{
            "run": self.run_id,
            "started": self.started,
            "finished": None if status == "running" else datetime.now(UTC),
            "heartbeat": datetime.now(UTC),
            "status": status,
            "recipe": self.given.model_dump_json(exclude_unset=True),
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
        # Kept until it was written: a write that failed may have come through all the same.
        self._name = _attempts_name()
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
            "halvings": attempt.halvings,
            "seconds": attempt.seconds,
            "start_seconds": attempt.start_seconds,
            "switch_seconds": attempt.switch_seconds,
            "peak_memory_mb": attempt.peak_memory_mb,
            "error_kind": attempt.error_kind,
            "error_text": attempt.error_text,
            "finished_at": datetime.now(UTC),
        })  # fmt: skip
        late = self._clock() - self._flushed > _FLUSH_SECONDS
        if late or len(self._rows) >= _FLUSH_ATTEMPTS:
            try:
                self.flush()
            except OSError as error:
                logger.warning("the log of attempts waits: %s", error)

    def flush(self) -> None:
        """Write what was collected."""
        self._flushed = self._clock()
        if self._rows:
            self._store.write("units", self._name, self._rows)
            self._rows, self._name = [], _attempts_name()


def _attempts_name() -> str:
    return f"attempts-{uuid.uuid4().hex}"
