"""The process in which calls are carried out: a worker, as of a run, and a folder for its rows.

Calls go through the jobs and steps of the pipeline, so that a number is the same wherever it comes
from, and what was computed once is read again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prunelib.engines.base import Canary, Engine
from prunelib.engines.registry import EngineName
from prunelib.interventions.base import Intervention
from prunelib.models import Loaded, ModelInfo, describe
from prunelib.models.loading import load_tokenizer
from prunelib.pipeline.stages.registry import check_model
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.steps import Batch, Found, Step, resume
from prunelib.pipeline.units.unit import Row, Unit
from prunelib.pipeline.units.worker import Worker
from prunelib.recipe.checks import check_recipe
from prunelib.recipe.model import ModelSpec
from prunelib.recipe.recipe import Recipe
from prunelib.results.storage.store import Store

if TYPE_CHECKING:
    from prunelib.api.tasks import OpenTask
    from prunelib.engines.transformers import TransformersEngine


class _OneModel(Worker):
    """A worker whose engine is the model that it attributes: in memory once."""

    def __init__(self, store: Store, gpus: int) -> None:
        super().__init__(store)
        self._gpus = gpus
        self._answering: TransformersEngine | None = None

    def loaded(self, info: ModelInfo, dtype: str) -> Loaded:
        if self._answering is not None:
            self._answering.close()
            self._answering = None
        return super().loaded(info, dtype)

    def engine(self, unit: Unit, kind: EngineName, dtype: str, intervention: Intervention,
               canary: Canary | None) -> Engine:
        return self.answering(unit.model, dtype, intervention)

    def answering(self, info: ModelInfo, dtype: str, intervention: Intervention
                  ) -> TransformersEngine:
        """The engine under an intervention, until the model is asked for again."""
        from prunelib.engines.transformers import BATCH_TOKENS, TransformersEngine

        engine = TransformersEngine(self.loaded(info, dtype))
        engine.batch_tokens = BATCH_TOKENS >> self.batch_halvings
        engine.switch(intervention)
        self._answering = engine
        return engine


class Session:
    """One model, loaded when it is first needed, and every row that was computed with it."""

    def __init__(self, spec: ModelSpec) -> None:
        """Find the model. Raises :class:`~prunelib.errors.UserError` if it cannot be used."""
        self.spec = spec
        self.info = describe(spec.id, spec.revision, spec.trust_remote_code, spec.bos)
        self._folder = tempfile.TemporaryDirectory(prefix="prunelib-")
        self.store = Store.open(self._folder.name)
        gpus = 1 if spec.tensor_parallel == "auto" else spec.tensor_parallel
        self._worker = _OneModel(self.store, gpus)

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return load_tokenizer(self.info)

    @contextmanager
    def changed(self, intervention: Intervention) -> Iterator[Loaded]:
        """The model under an intervention; within the context only."""
        with intervention.applied(
                self._worker.loaded(self.info, self.spec.dtype)) as changed:
            yield changed

    def engine(self, intervention: Intervention) -> TransformersEngine:
        """What answers under an intervention, until anything else is asked of the session."""
        return self._worker.answering(self.info, self.spec.dtype, intervention)

    def model_run(self, content: Mapping[str, Any], tasks: Iterable[OpenTask]) -> ModelRun:
        """The model on its way through a recipe of these sections, which is checked first.

        Raises:
            UserError: of a mistake in the sections, or what the model cannot give.
        """
        recipe = Recipe.model_validate({
            "name": "python", "models": [self.spec], "engine": "transformers",
            "tasks": [task.spec for task in tasks if task.spec is not None], **content})
        check_recipe(recipe, set())
        check_model(recipe, self.info)
        return ModelRun(recipe, self.spec, self.info, self.store)

    def follow(self, step: Step[Found]) -> Found:
        """Carry out a step of the pipeline here, and give what it found."""
        batch: Batch | None = None
        while True:
            try:
                batch = resume(step, batch, frozenset())
            except StopIteration as end:
                found: Found = end.value
                return found
            for unit in batch.units:
                self._worker.perform(unit)

    def rows(self, unit: Unit) -> list[Row]:
        """What a unit gives, computed if it was not before."""
        self._worker.perform(unit)
        found: list[Row] = self.store.read(unit.table, [unit.id]).to_pylist()
        return found
