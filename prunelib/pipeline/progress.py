"""How far a run is, from its result files alone: without Ray, from any machine, without models."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

from prunelib.errors import UserError, unknown_name
from prunelib.pipeline.stages.registry import counts, studies
from prunelib.pipeline.stages.study import Count
from prunelib.recipe.load import stored_recipe
from prunelib.results.schemas import TABLES
from prunelib.results.storage.files import reason
from prunelib.results.storage.store import NoResultsError, Store
from prunelib.vocabulary import Stage

#: A run that says it is running and has given no sign of life for so long is taken for dead.
SILENCE = timedelta(minutes=2)
#: Attempts that rates are measured on.
_RECENT = 50
#: Those that have units; ``model`` has none.
_STAGES: tuple[Stage, ...] = tuple(stage for stage in get_args(Stage) if stage != "model")
#: Stages of a study in order that are asked for whole.
_AT_ONCE: tuple[Stage, ...] = ("canary", "evaluate")
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
        damaged: files there that are damaged; what they held counts as not done.
    """

    run: str
    status: str
    started: datetime
    finished: datetime | None
    silent_since: datetime | None
    stages: tuple[StageProgress, ...]
    others: tuple[str, ...] = ()
    damaged: int = 0

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


def read_progress(results: str | Path | Store, run: str | None = None,
                  now: datetime | None = None) -> RunProgress:
    """How far ``run`` (by default the one that started last) is in a results folder.

    Of a store that was opened before, only files that are new are read.

    Raises:
        NoResultsError: there are no results yet, or no such run.
        UserError: the results cannot be read.
    """
    store = results if isinstance(results, Store) else Store.open(results, create=False)
    try:
        return _read(store, run, now or datetime.now(UTC))
    except OSError as error:
        raise UserError(f"cannot read {store.location}: {reason(error)}") from error


def _read(store: Store, run: str | None, now: datetime) -> RunProgress:
    runs = sorted(store.read("runs").to_pylist(), key=lambda row: row["started"])
    if not runs:
        raise NoResultsError(f"{store.location} holds no run yet: has it started?")
    found = {row["run"]: row for row in runs}
    if run is not None and run not in found:
        raise NoResultsError(str(unknown_name("run", run, found)))
    row = found[run or runs[-1]["run"]]
    files: set[str] = set()
    for table in TABLES.keys() - _ABOUT_RUNS:
        files |= store.done(table)
    progress = summarise(
        row,
        links=[link for link in store.read("run_units").to_pylist() if link["run"] == row["run"]],
        attempts=store.read("units").to_pylist(),
        heads_of={model["model"]: (model["layers"], model["heads"])
                for model in store.read("models").to_pylist()},
        files=files,
        now=now,
        others=tuple(name for name in found if name != row["run"]),
    )
    return replace(progress, damaged=len(store.known_damage))


def summarise(
    run: Row,
    links: Iterable[Row],
    attempts: list[Row],
    heads_of: dict[str, tuple[int, int]],
    files: set[str],
    now: datetime,
    others: tuple[str, ...] = (),
) -> RunProgress:
    """As :func:`read_progress`, from rows of the tables and the unit ids that have a file.

    ``heads_of`` has the layers of every model, and the heads of each layer.
    """
    begun: dict[tuple[str, str], set[str]] = defaultdict(set)
    for link in links:
        begun[link["model"], link["stage"]].add(link["unit_id"])
    recipe = stored_recipe(run["resolved"])
    models = [spec.id for spec in recipe.models] if recipe else sorted({m for m, _ in begun})
    asked = studies(recipe) if recipe else []
    in_order = recipe is not None and len(asked) == 1 and asked[0].in_order(recipe)
    speed = _Speed(run, attempts, now)
    stages = []
    for model in models:
        known = counts(recipe, *heads_of[model]) if recipe and model in heads_of else {}
        for stage in _STAGES:
            ids = begun.get((model, stage), set())
            unasked = known and not known.get(stage, Count()).most
            if not ids and (unasked or stage == "start"):  # which few models are asked for
                continue
            total, exact = len(ids), run["status"] == "done"
            if not exact and stage in known:
                after = any(begun.get((model, later)) for later in _after(stage))
                whole = in_order and (after or (bool(ids) and stage in _AT_ONCE))
                total, exact = _total(total, stage, known[stage], whole)
            done = len(ids & files)
            stages.append(StageProgress(
                model, stage, done, total if total or exact else None, exact,
                speed.failed(ids - files), *speed.of(model, stage, total - done if total else None),
            ))
    beat = run["heartbeat"]
    silent = beat if run["status"] == "running" and beat and now - beat > SILENCE else None
    return RunProgress(run["run"], run["status"], run["started"], run["finished"], silent,
                       tuple(stages), others)


def _total(asked: int, stage: Stage, count: Count, whole: bool) -> tuple[int, bool]:
    """Units of a stage, and whether that is known rather than estimated.

    ``asked`` for so far, which are all of them if the stage is known to be asked for ``whole``.
    """
    if whole and not count.exact:
        return asked, True
    # Attribution seldom needs all levels of its quadrature; other stages mostly need what they can.
    likely = count.least if stage == "attribute" else count.most
    return max(asked, likely), count.exact


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
