"""Running a recipe: the driver hands units to an executor and records what became of them."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.compute as pc

from prunelib.engines.registry import check_engine, choose_engine, not_in_vllm
from prunelib.errors import UserError
from prunelib.identity import digest
from prunelib.models import ModelInfo, describe, reference_models
from prunelib.models.loading import checking_tokenizer
from prunelib.pipeline.attempts import AttemptLog
from prunelib.pipeline.provenance import code_version, hardware, packages
from prunelib.pipeline.reporting import Reporter, default_reporter
from prunelib.pipeline.stages.registry import Course, check_model, model_counts
from prunelib.pipeline.units.executor import Attempt, Executor, InlineExecutor
from prunelib.pipeline.units.model_run import ModelRun, finished
from prunelib.pipeline.units.unit import Unit
from prunelib.pipeline.units.worker import Worker
from prunelib.recipe.load import read_recipe, recipe_text
from prunelib.recipe.problems import Findings, Mistakes
from prunelib.recipe.recipe import Recipe
from prunelib.results.storage.files import reason
from prunelib.results.storage.store import ASIDE, Store
from prunelib.tasks import TASKS
from prunelib.tasks.tokenization import appended

logger = logging.getLogger(__name__)

#: Seconds between signs of life of a run, in the column ``heartbeat`` of the table ``runs``.
HEARTBEAT = 30.0


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


def prepare(recipe: Recipe, elsewhere: bool = False, unread: Collection[str] = ()
            ) -> list[ModelInfo]:
    """Find every model of a recipe and check the recipe against it.

    Raises :class:`UserError` that names every model that cannot be used. Arguments as in
    :func:`each_model`.
    """
    infos = []
    findings = Findings()
    for i, found in enumerate(each_model(recipe, elsewhere, unread)):
        with findings.at("models", i):
            if isinstance(found, UserError):
                raise found
            infos.append(found)
    with findings.at("models"):
        _check_twice(recipe)
    findings.end()
    return infos


def usable(recipe: Recipe) -> list[ModelInfo | UserError]:
    """Every model of a recipe, in its order, or why it cannot be used.

    Raises :class:`UserError` if that is so of all of them, or one is listed twice.
    """
    _check_twice(recipe)
    found = each_model(recipe)
    if all(isinstance(info, UserError) for info in found):
        raise UserError("; ".join(dict.fromkeys(map(str, found))))
    return found


def each_model(recipe: Recipe, elsewhere: bool = False, unread: Collection[str] = ()
               ) -> list[ModelInfo | UserError]:
    """Every model of a recipe, in its order, or why it cannot be used.

    Args:
        recipe: what is to be run.
        elsewhere: it will run on other machines than this one, with engines and GPUs of their own.
        unread: sections that have mistakes of their own. What concerns them is not checked.
    """
    found: list[ModelInfo | UserError] = []
    for spec in recipe.models if "models" not in unread else ():
        try:
            info = describe(spec.id, spec.revision, spec.trust_remote_code, spec.bos)
            if "engine" not in unread:
                check_engine(recipe.engine, info, elsewhere)
            if not unread:
                check_model(recipe, info)
            found.append(info)
        except UserError as error:
            named = spec.id in str(error)
            found.append(error if named else UserError(f"model '{spec.id}': {error}"))
    return found


def model_notes(recipe: Recipe, info: ModelInfo) -> list[str]:
    """What a user should know of a model and may not expect."""
    notes = []
    if recipe.engine == "auto" and (reason := not_in_vllm(info)) is not None:
        notes.append(f"{info.id}: transformers answers, as {reason}")
    if behind := appended(checking_tokenizer(info)):
        notes.append(f"{info.id}: its tokenizer puts special tokens behind every text (ids "
                     f"{', '.join(map(str, behind))}), which are left out of prompts")
    larger = [name for name in recipe.evaluate.tasks if f"{name}_reference" in TASKS]
    if larger and info.id in reference_models():
        notes.append(f"{info.id} knows a part of the words of {', '.join(larger)}: the task "
                     f"{larger[0]}_reference has these, as the suite icl18_reference")
    return notes


def _check_twice(recipe: Recipe) -> None:
    ids = [spec.id for spec in recipe.models]
    if len(set(ids)) < len(ids):
        raise UserError("models: the same model is listed twice")


def checked(path: str | Path) -> tuple[Recipe, list[ModelInfo]]:
    """A recipe file and its models. Raises :class:`UserError` for all mistakes, with places."""
    reading = read_recipe(recipe_text(path), str(path))
    infos: list[ModelInfo] = []
    if reading.recipe is not None:
        try:
            infos = prepare(reading.recipe, unread=reading.unread)
        except Mistakes as error:
            reading.add(error.found)
    return reading.end(), infos


def run(
    recipe: Recipe,
    results: str | Path,
    executor: Executor | None = None,
    reporter: Reporter | None = None,
    predicted: Callable[[], Mapping[str, Mapping[str, float]]] | None = None,
) -> RunReport:
    """Run a recipe and return how it ended; finished units are not done again.

    Args:
        recipe: what to run.
        results: folder of the results or s3://bucket/prefix, made if it is not there.
        executor: who performs the units; by default this process, one after the other.
        reporter: who is told about progress, such as :class:`prunelib.pipeline.reporting.Lines`;
            by default those lines in a notebook, else nobody.
        predicted: gives model → stage → seconds that it should take, to be kept beside what it
            takes (:func:`prunelib.pipeline.plan.predicted`); asked when a run starts first.

    Raises:
        UserError: for anything the user can fix, before any work starts; or the results were
            out of reach for longer than is waited.
    """
    infos = usable(recipe)
    for info in infos:
        if isinstance(info, ModelInfo):
            choose_engine(recipe.engine, info)  # else it would stop the model after its search
    store = Store.open(results)
    own = executor is None
    executor = executor or InlineExecutor(lambda: Worker(store))
    driver = _Driver(recipe, store, executor, reporter or default_reporter(), predicted)
    try:
        _mend(store)
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


def _mend(store: Store) -> None:
    """Move damaged files aside: what they should hold counts as not done."""
    damage = store.damage()
    for found in damage:
        if found.denied:  # it may be finished work
            raise UserError(f"{store.location}/{found.file} {found.what}")
    if damage:
        store.set_aside(damage)
        logger.warning("%d damaged files were moved to %s/%s: what this run needs of them is done "
                       "again", len(damage), store.location, ASIDE)


class _Driver:
    def __init__(self, recipe: Recipe, store: Store, executor: Executor, reporter: Reporter,
                 predicted: Callable[[], Mapping[str, Mapping[str, float]]] | None) -> None:
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
        # What is spent is of all starts of a run, so the first one's prediction is kept.
        rows = store.read("runs").to_pylist()
        before = [row["predicted"] for row in rows if row["run"] == self.run_id]
        likely = predicted() if predicted and not before else None
        self.predicted = before[0] if before else json.dumps(likely) if likely else None
        self.started = datetime.now(UTC)
        self.deadline = recipe.deadline_after(self.started)
        #: Units that are linked to the run under a model's name, by this driver or one before it.
        self._linked: set[tuple[str, str]] = set()
        #: Unit in the executor's hands → the same unit under each model's name that waits for it.
        self._asked: dict[str, list[Unit]] = {}
        #: Models of which it was said that their engine is started.
        self._told: set[str] = set()

    def run(self, infos: list[ModelInfo | UserError]) -> RunReport:
        self._record_run("running")
        links = self.store.read("run_units")
        own = links.filter(pc.equal(links["run"], self.run_id))
        self._linked = set(zip(own["model"].to_pylist(), own["unit_id"].to_pylist(), strict=True))
        models = list(zip(self.recipe.models, infos, strict=True))
        runs = [ModelRun(self.recipe, spec, info, self.store)
                for spec, info in models if isinstance(info, ModelInfo)]
        unusable = {spec.id: [str(why)] for spec, why in models if isinstance(why, UserError)}
        self.log.models({spec.id: str(why) if isinstance(why, UserError) else None
                         for spec, why in models})
        courses = {model.info.id: Course(model) for model in runs}
        for note in self.recipe.notes() + [
                note for model in runs for note in model_notes(self.recipe, model.info)]:
            self.reporter.note(note)
        for model in runs:
            info = model.info
            for stage, count in model_counts(self.recipe, info).items():
                self.reporter.expected(info.id, stage, count.least, count.most)
        outstanding: dict[str, set[str]] = {}
        status = "interrupted"
        try:
            for name, course in courses.items():
                outstanding[name] = self._advance(course)
            for attempt in self._attempts(outstanding):
                self._note(attempt)
                if attempt.again:
                    continue
                for unit in self._asked.pop(attempt.unit.id):
                    name = unit.model.id
                    if not attempt.done:
                        courses[name].failed.add(unit.id)
                    outstanding[name].discard(unit.id)
                    if not outstanding[name]:
                        outstanding[name] = self._advance(courses[name])
            # Also of models for which there was no time to get to the end.
            stopped = unusable | {
                model.info.id: model.stopped for model in runs if model.stopped}
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
                for withdrawn in self.executor.withdraw():
                    for unit in self._asked.pop(withdrawn.id):
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
            while model.notes:
                self.reporter.note(model.notes.pop(0))
            self._link(model, units or [])
            if units is None:
                return set()
            there = finished(self.store, units)
            todo = [unit for unit in units if unit.id not in there]
            self.reused += len(units) - len(todo)
            total, left = (Counter(unit.stage for unit in some) for some in (units, todo))
            for stage, count in total.items():
                self.reporter.stage(name, stage, count, count - left[stage])
            if todo and self._late():
                self.left[name, todo[0].stage] += len(todo)
                return set()
            if name not in self._told and any(unit.job.role == "vllm" for unit in todo):
                self._told.add(name)
                self.reporter.note(f"{name}: starting vLLM, about 2 minutes")
            for unit in sorted(todo, key=lambda u: -u.cost):
                asked = self._asked.setdefault(unit.id, [])
                asked.append(unit)
                if len(asked) == 1:
                    self.executor.submit(unit)
            if todo:
                return {unit.id for unit in todo}
        return set()

    def _note(self, attempt: Attempt) -> None:
        self.log.add(attempt)
        for unit in self._asked[attempt.unit.id]:
            self.reporter.attempt(replace(attempt, unit=unit))
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
                if (model.info.id, unit_id) not in self._linked]
        self._linked.update((model.info.id, unit_id) for unit_id, _ in files)
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
            "predicted": self.predicted,
        }])  # fmt: skip
