"""One model of a recipe on its way through its studies: what every stage needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prunelib.identity import digest
from prunelib.models import ModelInfo
from prunelib.pipeline.units.prompts import PromptsRef, TaskRef, written
from prunelib.pipeline.units.unit import Job, Unit
from prunelib.recipe.model import ModelSpec
from prunelib.recipe.recipe import Recipe
from prunelib.results.storage.store import Store
from prunelib.tasks import Split, Written, numbers
from prunelib.vocabulary import Scoring


class ModelRun:
    """A model and a recipe, where their results are, and how units of them are made."""

    def __init__(
        self, recipe: Recipe, spec: ModelSpec, info: ModelInfo, store: Store, record: bool = True
    ) -> None:
        """Prepare a model; without ``record`` nothing is written, which is how a plan looks."""
        self.recipe = recipe
        self.spec = spec
        self.info = info
        self.store = store
        self._writes = record
        layers = recipe.search.layers
        self.layers = tuple(range(info.layers)) if layers == "all" else layers
        #: What the recipe asks for and this model cannot give, and why.
        self.skipped: list[str] = []
        #: Studies that ended early, and why.
        self.stopped: list[str] = []
        #: What a user should know of this model, until it was told.
        self.notes: list[str] = []
        #: Files that this run's results consist of: (table, unit id, stage).
        self.files: list[tuple[str, str, str]] = []

    def record(self, table: str, rows: list[dict[str, Any]], stage: str) -> None:
        """Write rows that the driver itself decides on, named by their content."""
        unit_id = f"{stage}-{digest('rows', [self.info.key, rows])}"
        if self._writes and not self.store.has(table, unit_id):
            self.store.write(table, unit_id, [row | {"unit_id": unit_id} for row in rows])
        self.files.append((table, unit_id, stage))

    def unit(self, job: Job, cost: float = 1.0, priority: int = 0) -> Unit:
        """A unit of this model."""
        split = self.spec.tensor_parallel
        return Unit(self.info, job, cost, priority, None if split == "auto" else split)

    def task(self, name: str) -> TaskRef:
        """A task of the recipe, as jobs hold it."""
        dataset = self.recipe.dataset(name)
        return TaskRef(name, self.recipe.task(name).digest,
                       "" if dataset is None else dataset.model_dump_json())

    def prompts(self, task: str, split: Split, shots: int, seed: int, indices: Iterable[int],
                demonstrations: str | None = None) -> PromptsRef:
        """Those of some draws of a task that were not drawn before, as jobs hold them."""
        wanted = list(indices)
        sources = self.recipe.sources(task, demonstrations)
        drawn = set(numbers(self.recipe.task(task), split=split, shots=shots, seed=seed,
                            count=max(wanted) + 1, demonstrations=sources))
        return PromptsRef(self.task(task), split, shots, seed,
                          tuple(i for i in wanted if i in drawn), self._written(task, split),
                          sources)

    def format_and_scoring(self, task: str, split: Split = "report"
                           ) -> tuple[Written, Scoring]:
        """How the prompts of a task are written on a split, and its answers read."""
        of = self.recipe.task(task)
        scoring = of.scoring or (self.recipe.evaluate.scoring if of.options else "greedy")
        return self._written(task, split), scoring

    def _written(self, task: str, split: Split) -> Written:
        asked = written(self.recipe, self.info, split)
        own = isinstance(asked, str) and self.recipe.task(task).format
        return "own" if own else asked


def finished(store: Store, units: Iterable[Unit]) -> set[str]:
    """Ids of units whose files are there, in the tables of ``units``: one look at each table."""
    return set().union(*(store.done(table) for table in {unit.table for unit in units}))
