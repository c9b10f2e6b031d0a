"""The studies of a recipe, and a model's way through them: score → choose → evaluate."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prunelib.errors import PrunelibError, one_line
from prunelib.models import ModelInfo, planted_neurons
from prunelib.models.loading import load_tokenizer
from prunelib.pipeline.stages.lm_eval import check_lm_eval
from prunelib.pipeline.stages.option_check import check_options
from prunelib.pipeline.stages.start_token import asked_start, check_start, start_token_tokens
from prunelib.pipeline.stages.study import Count, Lengths, Study, exactly
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import written
from prunelib.pipeline.units.steps import Batch, Step, resume
from prunelib.pipeline.units.unit import Unit
from prunelib.recipe.recipe import Recipe
from prunelib.tasks import SPLITS
from prunelib.tasks.chat import template_digest
from prunelib.vocabulary import Stage

logger = logging.getLogger(__name__)


def studies(recipe: Recipe) -> list[Study]:
    """What a recipe asks for, in the order of :data:`prunelib.recipe.studies.STUDIES`."""
    return recipe.studies()


def check_model(recipe: Recipe, info: ModelInfo) -> None:
    """Raise ``UserError`` if a study of the recipe cannot be done with a model."""
    for split in SPLITS:
        written(recipe, info, split)
    check_options(recipe, info)
    check_lm_eval(recipe, info)
    for study in studies(recipe):
        study.check_model(recipe, info)


def model_counts(recipe: Recipe, info: ModelInfo) -> dict[Stage, Count]:
    """Stage → units of a model."""
    about: dict[Stage, Count] = {} if asked_start(info) is None else {"start": exactly(1)}
    return about | counts(recipe, info.layers, info.heads)


def counts(recipe: Recipe, layers: int, heads: int) -> dict[Stage, Count]:
    """Stage → units of a model with so many layers and heads, from the recipe alone."""
    total: dict[Stage, Count] = {}
    for study in studies(recipe):
        for stage, count in study.counts(recipe, layers, heads).items():
            total[stage] = total.get(stage, Count()) + count
    return total


def tokens(recipe: Recipe, info: ModelInfo, lengths: Lengths) -> dict[Stage, float]:
    """Stage → prompt tokens that go forward through a model, or work that costs as much."""
    total: dict[Stage, float] = {"start": start_token_tokens()}
    for study in studies(recipe):
        for stage, work in study.tokens(recipe, info, lengths).items():
            total[stage] = total.get(stage, 0.0) + work
    return total


class Course:
    """A model's way through its studies, batch by batch.

    A study that ends early, since a unit that it needs failed or for what a model's files say,
    leaves its reason in ``run.stopped``, and the next one begins.
    """

    def __init__(self, run: ModelRun) -> None:
        self.run = run
        #: Ids of units that failed for good, to be kept up to date by whoever runs them.
        self.failed: set[str] = set()
        self._steps = _record_and_study(run)
        self._asked: Batch | None = None
        self._seen: set[str] = set()

    def units(self) -> list[Unit] | None:
        """The units of the next batch that were in none before; ``None`` at the end.

        To be called when all units of the batch before have ended.
        """
        while True:
            try:
                self._asked = resume(self._steps, self._asked, self.failed)
            except StopIteration:
                return None
            new = {unit.id: unit for unit in self._asked.units if unit.id not in self._seen}
            self._seen.update(new)
            if new:
                return list(new.values())


def _record_and_study(run: ModelRun) -> Step[None]:
    with _stopping(run, "model"):
        _record_model(run)
    if run.stopped:
        return
    yield from check_start(run)
    for study in studies(run.recipe):
        with _stopping(run, study.section):
            yield from study.steps(run)


@contextmanager
def _stopping(run: ModelRun, what: str) -> Iterator[None]:
    """Note why something ended early, on one line: what a model's files say, say."""
    try:
        yield
    except Exception as error:
        meant = isinstance(error, PrunelibError)
        logger.warning("%s: %s: %s", run.info.id, type(error).__name__, error, exc_info=not meant)
        why = one_line(error)
        run.stopped.append(f"{what}: {why if meant else f'{type(error).__name__}: {why}'}")


def _record_model(run: ModelRun) -> None:
    info = run.info
    names = ("revision", "weights_digest", "tokenizer_digest", "model_type", "layers", "width",
             "heads")
    run.record("models", [{"model": info.id} | {name: getattr(info, name) for name in names}
                          | {"bos": info.bos,
                             "chat_template": template_digest(load_tokenizer(info))}],
               "model")
    planted = planted_neurons(info)
    if planted:
        run.record("planted", [{"model": info.id, "site": info.site, "layer": layer,
                                "index": index} for layer, index in planted], "planted")
