"""How far a run is, from its result files alone: without Ray, from any machine, without models."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from prunelib.errors import UserError, unknown_name
from prunelib.pipeline.stages.importance_size import importance_size
from prunelib.pipeline.units.unit import Stage
from prunelib.recipe.base import AttributionSpec
from prunelib.recipe.recipe import Recipe
from prunelib.results.schemas import TABLES
from prunelib.results.storage.store import Store

#: A run that says it is running and has given no sign of life for so long is taken for dead.
SILENCE = timedelta(minutes=2)
#: Attempts that rates are measured on.
_RECENT = 50
_STAGES: tuple[Stage, ...] = get_args(Stage)
_ABOUT_RUNS = {"runs", "run_units", "units"}

Row = dict[str, Any]


@dataclass(frozen=True)
class StageProgress:
    """One model and stage of a run.

    Attributes:
        done: units whose files are there.
        total: units in all; None if not even an estimate is possible yet.
        exact: whether ``total`` is known rather than estimated from the recipe.
        failed: units whose latest attempt failed; while the run goes on they may be tried again.
        per_minute: units done per minute of late; None if none was done in this run.
        seconds_left: at the speed of late; None if it cannot be known yet.
    """

    model: str
    stage: str
    done: int
    total: int | None
    exact: bool
    failed: int
    per_minute: float | None
    seconds_left: float | None


@dataclass(frozen=True)
class RunProgress:
    """A run and its stages, model by model in the order of the recipe.

    Attributes:
        status: as in the table ``runs``.
        silent_since: last sign of life (UTC) of a run that seems to have died, else None.
        others: other runs whose results are in the same place.
    """

    run: str
    status: str
    started: datetime
    finished: datetime | None
    silent_since: datetime | None
    stages: tuple[StageProgress, ...]
    others: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether it is over, well or not."""
        return self.status != "running"

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the run is done, or None if one of its stages cannot tell yet."""
        if self.ended or self.silent_since:
            return None
        left = [stage.seconds_left for stage in self.stages]
        return None if None in left else sum(s for s in left if s is not None)


def expected_units(recipe: Recipe, layers: int, heads: int | None = None) -> dict[Stage, int]:
    """Stage → units of a model with ``layers`` layers, from the recipe alone.

    Attribution may need more, where a layer needs more nodes than the first level has; canaries
    and evaluations may be fewer, where two searches choose the same ablation (or the same layer
    and rate, whose random controls they share) or two rankings of heads begin alike. ``heads`` is
    the number of a layer's heads, if it is known.
    """
    units, study = neuron_units(recipe, layers), importance_size(recipe, layers, heads or 0)
    evaluate = recipe.evaluate
    shared = (len(evaluate.tasks) * len(evaluate.shots) * len(evaluate.seeds)
              if study.removal and units["evaluate"] else 0)  # the untouched model's
    return units | {
        "attribute": units["attribute"] + study.scoring,
        "canary": units["canary"] + study.ablations,
        "evaluate": units["evaluate"] + study.oracle + study.removal - shared,
    }


def neuron_units(recipe: Recipe, layers: int) -> dict[Stage, int]:
    """As :func:`expected_units`, of neurons alone."""
    if not recipe.attribution:
        return {"attribute": 0, "search": 0, "canary": 0, "evaluate": 0}
    evaluate, arms = recipe.evaluate, recipe.arms()
    searched = layers if recipe.search.layers == "all" else len(recipe.search.layers)
    random = recipe.controls.random
    main = sum(arm.main for arm in arms)
    searches = {(recipe.search_task(arm), recipe.search.split == "attribute" and arm)
                for arm in arms}
    # Every arm chooses one ablation, which has its random ones; the main ones' have searched ones.
    reported = sum((1 + random + random * arm.main)
                   * (len(evaluate.tasks) if arm.only is None or evaluate.transfer else 1)
                   for arm in arms) + 2 * len(evaluate.tasks)
    tasks = len(evaluate.tasks)
    tuned = sum(1 if arm.only else tasks for arm in arms
                if arm.main and recipe.controls.fine_tuning)
    vectors = (tasks + sum(1 if arm.only else tasks for arm in arms)
               if evaluate.task_vectors else 0)
    ablations = 1 + len(arms) * (1 + random) + random * main
    beside = 1 + len(evaluate.capability.tasks) if evaluate.capability else 0
    return {
        "attribute": sum(_attribution_units(arm.spec, searched) for arm in arms),
        "search": len(searches) + searched * (len(arms) + random * main),
        "canary": ablations,
        "evaluate": (reported + tuned) * len(evaluate.shots) * len(evaluate.seeds) + vectors
        + ablations * beside,
    }


def _attribution_units(spec: AttributionSpec, searched: int) -> int:
    pool = int(spec.choose != "random")
    if spec.method == "random":
        return pool
    if spec.path == "single" or spec.method == "iterated_path":
        return pool + searched
    if spec.method != "integrated_gradients":
        return pool + 1
    blocks = math.ceil(spec.prompts / spec.block)
    return pool + blocks * (1 if spec.path == "joint" else searched)


def read_progress(results: str | Path, run: str | None = None, now: datetime | None = None
                  ) -> RunProgress:
    """How far ``run`` (by default the one that started last) is in a results folder.

    Raises:
        UserError: there are no results yet, or no such run.
    """
    store = Store.open(results, create=False)
    runs = sorted(store.read("runs").to_pylist(), key=lambda row: row["started"])
    if not runs:
        raise UserError(f"{results} holds no run yet: has it started?")
    found = {row["run"]: row for row in runs}
    if run is not None and run not in found:
        raise unknown_name("run", run, found)
    row = found[run or runs[-1]["run"]]
    files: set[str] = set()
    for table in TABLES.keys() - _ABOUT_RUNS:
        files |= store.done(table)
    return summarise(
        row,
        links=[link for link in store.read("run_units").to_pylist() if link["run"] == row["run"]],
        attempts=store.read("units").to_pylist(),
        layers={model["model"]: (model["layers"], model["heads"])
                for model in store.read("models").to_pylist()},
        files=files,
        now=now or datetime.now(UTC),
        others=tuple(name for name in found if name != row["run"]),
    )


def summarise(
    run: Row,
    links: Iterable[Row],
    attempts: list[Row],
    layers: dict[str, tuple[int, int | None]],
    files: set[str],
    now: datetime,
    others: tuple[str, ...] = (),
) -> RunProgress:
    """As :func:`read_progress`, from rows of the tables and the unit ids that have a file.

    ``layers`` has the layers of every model, and the heads of one.
    """
    begun: dict[tuple[str, str], set[str]] = defaultdict(set)
    for link in links:
        begun[link["model"], link["stage"]].add(link["unit_id"])
    recipe = _recipe(run["resolved"])
    models = [spec.id for spec in recipe.models] if recipe else sorted({m for m, _ in begun})
    speed = _Speed(run, attempts, now)
    stages = []
    for model in models:
        known = expected_units(recipe, *layers[model]) if recipe and model in layers else {}
        for stage in _STAGES:
            ids = begun.get((model, stage), set())
            if known and not known.get(stage) and not ids:
                continue  # what the recipe does not ask for
            total, exact = len(ids), run["status"] == "done"
            if not exact:
                after = any(begun.get((model, later)) for later in _after(stage))
                repeats = (recipe is None or recipe.deadline is not None
                           or recipe.importance is not None)
                exact = bool(ids) and not repeats and (stage != "attribute" or after)
                total = total if exact else max(total, known.get(stage, 0))
            done = len(ids & files)
            stages.append(StageProgress(
                model, stage, done, total if total or exact else None, exact,
                speed.failed(ids - files), *speed.of(model, stage, total - done if total else None),
            ))
    beat = run["heartbeat"]
    silent = beat if run["status"] == "running" and beat and now - beat > SILENCE else None
    return RunProgress(run["run"], run["status"], run["started"], run["finished"], silent,
                       tuple(stages), others)


def _recipe(resolved: str) -> Recipe | None:
    """The recipe, unless it was written by another version or names what this machine lacks."""
    try:
        return Recipe.model_validate_json(resolved)
    except (ValidationError, UserError):
        return None


def _after(stage: Stage) -> tuple[Stage, ...]:
    return _STAGES[_STAGES.index(stage) + 1 :]


class _Speed:
    """How fast a run has been since it was last started; its clock is that of its driver."""

    def __init__(self, run: Row, attempts: list[Row], now: datetime) -> None:
        self._running, self._now = run["status"] == "running", now
        self._all = sorted(attempts, key=lambda row: row["finished_at"])
        self._own = [a for a in self._all
                     if a["run"] == run["run"] and a["finished_at"] >= run["started"]]
        self._started: datetime = run["started"]
        self._last = {a["unit_id"]: a["status"] for a in self._all if a["run"] == run["run"]}

    def failed(self, ids: set[str]) -> int:
        """How many of the units, which have no file, failed at their latest attempt."""
        return Counter(self._last.get(unit) for unit in ids)["failed"]

    def of(self, model: str, stage: str, left: int | None) -> tuple[float | None, float | None]:
        """Units per minute, and seconds for the ``left`` units that remain."""
        def wanted(rows: list[Row]) -> list[Row]:
            return [a for a in rows if (a["model"], a["stage"]) == (model, stage)
                    and a["status"] == "done"][-_RECENT:]

        own, measured = wanted(self._own), wanted(self._all)
        rate = None
        if own:
            end = self._now if left and self._running else own[-1]["finished_at"]
            rate = 60 * len(own) / max(1e-3, (end - self._first(own)).total_seconds())
        at_once = self._at_once()
        if left is None or not self._running:
            return rate, None
        if left == 0:
            return rate, 0.0
        if not measured or not at_once:
            return rate, None
        seconds = sum(a["seconds"] for a in measured) / len(measured)
        return rate, left * seconds / at_once

    def _at_once(self) -> float:
        """Seconds of work done per second: how many workers were busy, on average."""
        recent = self._own[-_RECENT:]
        if not recent:
            return 0.0
        span = (recent[-1]["finished_at"] - self._first(recent)).total_seconds()
        return float(sum(a["seconds"] for a in recent) / max(1e-3, span))

    def _first(self, attempts: list[Row]) -> datetime:
        """When the first of some attempts began."""
        begun: list[datetime] = [a["finished_at"] - timedelta(seconds=a["seconds"])
                                 for a in attempts]
        return max(self._started, min(begun))
