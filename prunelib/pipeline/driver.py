"""Running a recipe: the driver hands units to an executor and records what became of them."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pyarrow.compute as pc

from prunelib.engines.registry import check_engine, choose_engine
from prunelib.errors import UserError
from prunelib.identity import digest
from prunelib.models import ModelInfo, describe
from prunelib.pipeline.attempts import AttemptLog
from prunelib.pipeline.provenance import code_version, hardware, packages
from prunelib.pipeline.stages.registry import Course, check_model
from prunelib.pipeline.units.executor import Attempt, Executor, InlineExecutor
from prunelib.pipeline.units.model_run import ModelRun, finished
from prunelib.pipeline.units.unit import Unit
from prunelib.pipeline.units.worker import Worker
from prunelib.recipe.recipe import Recipe
from prunelib.results.storage.files import reason
from prunelib.results.storage.store import Store

logger = logging.getLogger(__name__)

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
        stopped: model → studies that ended early, each with the reason.
        skipped: model → parts of the recipe that it cannot give, each with the reason.
    """

    run: str
    results: str
    units_done: int
    units_reused: int
    failed: list[Attempt] = field(default_factory=list)
    left: Counter[tuple[str, str]] = field(default_factory=Counter)
    stopped: dict[str, list[str]] = field(default_factory=dict)
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
        check_model(recipe, info)
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
        self.log = AttemptLog(store, self.run_id)
        self.done = self.reused = 0
        self.failed: list[Attempt] = []
        self.left: Counter[tuple[str, str]] = Counter()
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
        courses = {model.info.id: Course(model) for model in runs}
        outstanding: dict[str, set[str]] = {}
        status = "interrupted"
        try:
            for name, course in courses.items():
                outstanding[name] = self._advance(course)
            for attempt in self._attempts(outstanding):
                name = attempt.unit.model.id
                self._note(attempt)
                if attempt.again:
                    continue
                if not attempt.done:
                    courses[name].failed.add(attempt.unit.id)
                outstanding[name].discard(attempt.unit.id)
                if not outstanding[name]:
                    outstanding[name] = self._advance(courses[name])
            # Also of models for which there was no time to get to the end.
            stopped = {model.info.id: model.stopped for model in runs if model.stopped}
            skipped = {model.info.id: model.skipped for model in runs if model.skipped}
            failed = self.failed or stopped or skipped
            status = "failed" if failed else "deadline" if self.left else "done"
        finally:
            self._record_run(status)
        return RunReport(self.run_id, self.store.location, self.done, self.reused,
                         self.failed, self.left, stopped, skipped)

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

    def _advance(self, course: Course) -> set[str]:
        """Go on with a model until a batch has something to do; return the ids it waits for."""
        model, name = course.run, course.run.info.id
        # What there was no time for is missing to everything that follows.
        while not any(left == name for left, _ in self.left):
            units = course.units()
            self._link(model, units or [])
            if units is None:
                return set()
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
