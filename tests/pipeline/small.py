"""A recipe so small that the whole pipeline takes seconds on the tiny random model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

import prunelib
from prunelib.models import ModelInfo, describe
from prunelib.pipeline.plan import estimate
from prunelib.pipeline.progress import RunProgress, read_progress
from prunelib.pipeline.stages.registry import counts as expected
from prunelib.pipeline.units.executor import Attempt, InlineExecutor
from prunelib.pipeline.units.unit import Unit
from prunelib.pipeline.units.worker import Worker
from prunelib.recipe.recipe import Recipe
from prunelib.results.figures.choices import draw_choices
from prunelib.results.figures.drawing import Drawing
from prunelib.results.query import open_results
from prunelib.results.schemas import TABLES
from prunelib.results.storage.store import Store

#: Layers of the tiny model.
LAYERS = 2
#: Tables whose rows say how a run went, not what came out.
ABOUT_THE_RUN = {"runs", "units"}


def recipe(info: ModelInfo, **changes: Any) -> Recipe:
    """The recipe with other sections.

    The tiny model is always wrong, so nothing would be switched off if that was a candidate.
    """
    content: dict[str, Any] = {
        "name": "small",
        "models": [info.path],
        "engine": "transformers",
        "attribution": {"prompts": 6, "shots": 2, "block": 3, "max_nodes": 17},
        "search": {"rates": [0.1, 0.5], "examples": 12, "shots": 2},
        "controls": {"random": 1, "random_searches": 1},
        "evaluate": {"tasks": ["to_upper", "en_fr"], "shots": [1, 2], "examples": 6},
    }
    content |= changes
    content["search"] = {"nothing": "excluded"} | content["search"]
    return Recipe.model_validate(content)


def rows(results: str | Path) -> dict[str, pa.Table]:
    """Everything that came out, in one order whatever the order of the files."""
    store = Store.open(results, create=False)
    return {
        table: store.read(table).sort_by([(c, "ascending") for c in _sortable(table)])
        for table in TABLES
        if table not in ABOUT_THE_RUN
    }


def _sortable(table: str) -> list[str]:
    return [f.name for f in TABLES[table] if not pa.types.is_list(f.type)]


class Refusing(InlineExecutor):
    def submit(self, unit: Unit) -> None:
        raise AssertionError(f"{unit.id} was done already")


def drawn(results: Path) -> dict[str, Drawing]:
    """The figures of the choices of a run's only model, by the section that they are of."""
    connection = open_results(results)
    ((run,),) = connection.sql("SELECT run FROM runs").fetchall()
    found = list(draw_choices(connection, run))
    by_section = {one.section: one for one in found}
    assert len(by_section) == len(found)
    return by_section


def ask(results: Path, sql: str) -> list[tuple[Any, ...]]:
    return open_results(results).execute(sql).fetchall()


def done_and_resumed(made: Recipe, results: Path) -> dict[str, int]:
    """Run a recipe, twice; the units of its stages."""
    report = prunelib.run(made, results)
    assert report.complete, [a.error_text for a in report.failed] or report.stopped
    again = prunelib.run(made, results, Refusing(lambda: Worker(Store.open(results))))
    assert again.units_done == 0 and again.units_reused == report.units_done
    counts = {stage.stage: (stage.done, stage.total) for stage in read_progress(results).stages}
    planned = {line.stage: (line.done, line.units.least) for line in estimate(made, results)}
    assert all(line.units.exact for line in estimate(made, results))
    assert counts == planned and all(done == total for done, total in counts.values())
    assert all(line.teraflop == 0 for line in estimate(made, results))
    layers = describe(made.models[0].id).layers
    for stage, count in expected(made, layers, 0).items():
        assert count.least <= counts.get(stage, (0, 0))[0] <= count.most, stage
    return {stage: done for stage, (done, _) in counts.items()}


class Watcher:
    """A reporter that looks at the files whenever a stage begins, and counts its units."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.asked: Counter[str] = Counter()
        self.seen: list[RunProgress] = []

    def expected(self, model: str, stage: str, least: int, most: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def stage(self, model: str, stage: str, units: int, done: int) -> None:
        self.asked[stage] += units
        self.seen.append(read_progress(self.results))

    def attempt(self, attempt: Attempt) -> None:
        assert attempt.done, attempt.error_text
