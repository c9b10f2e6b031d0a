"""What one model goes through: score components → choose an ablation → evaluate it.

:func:`stages` is a generator. It yields the units of the next stage, is resumed when all of them
are done, and decides what follows from their files alone. So stages have a barrier only within a
model, a finished stage costs one look at a folder, and a driver that died is replaced by one that
starts from the beginning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from prunelib.errors import UserError
from prunelib.models import planted_neurons
from prunelib.pipeline.stages.attribution import Ranking, random_rankings, rank
from prunelib.pipeline.stages.evaluation import canaries, evaluation
from prunelib.pipeline.stages.fine_tuning import fine_tuning, task_vectors
from prunelib.pipeline.stages.head_importance import importance
from prunelib.pipeline.stages.in_context_heads import in_context
from prunelib.pipeline.stages.search import search
from prunelib.pipeline.units.model_run import ModelRun, Step, together
from prunelib.pipeline.units.unit import Unit
from prunelib.recipe.recipe import Arm


def stages(run: ModelRun) -> Iterator[list[Unit]]:
    """Yield the units of one stage after the other, each once; resume when they are done."""
    seen: set[str] = set()
    for units in _stages(run):
        new = {unit.id: unit for unit in units if unit.id not in seen}
        seen.update(new)
        if new:
            yield list(new.values())


def _stages(run: ModelRun) -> Iterator[list[Unit]]:
    """As :func:`stages`; with a deadline, later stages name units of earlier ones again."""
    _record_model(run)
    if run.recipe.attribution:
        yield from _neurons(run)
    yield from importance(run)
    yield from in_context(run)


def _neurons(run: ModelRun) -> Iterator[list[Unit]]:
    """Attribute, search and evaluate neurons."""
    ranked = yield from together([_ranking(run, arm) for arm in run.recipe.arms()])
    rankings = [ranking for ranking in ranked if ranking is not None]
    main = [ranking for ranking in rankings if ranking.arm.main]
    controls = [control for ranking in main for control in random_rankings(run, ranking)]
    if run.recipe.deadline is None:
        yield from _comparison(run, rankings + controls, first=True, extras=True)
    else:  # two searches instead of one, so that the main comparison is there early
        yield from _comparison(run, main, first=True, extras=False)
        yield from _comparison(run, rankings + controls, first=False, extras=True)


def _ranking(run: ModelRun, arm: Arm) -> Step[Ranking | None]:
    """The ranking of an arm; without it, for a reason that the user hears, the others go on."""
    try:
        return (yield from rank(run, arm))
    except UserError as error:
        if arm.main:  # with which everything is compared
            raise
        run.skipped.append(str(error))
        return None


def _comparison(run: ModelRun, rankings: list[Ranking], first: bool, extras: bool
                ) -> Iterator[list[Unit]]:
    """Search the grid, choose, evaluate: the main comparison ``first``, then ``extras``."""
    urgency = 0 if first else 1
    entries = yield from search(run, rankings, urgency)
    searched = run.searched(rankings[0].arm, rankings[0].sample)
    prompt = replace(searched, indices=searched.indices[:1])
    yield (asked := canaries(run, entries, prompt, urgency))
    yield evaluation(run, entries, asked, extras)
    if extras:
        yield fine_tuning(run, rankings) + task_vectors(run, entries)


def _record_model(run: ModelRun) -> None:
    info = run.info
    names = ("revision", "weights_digest", "tokenizer_digest", "model_type", "layers", "width",
             "heads")
    run.record("models", [{"model": info.id} | {name: getattr(info, name) for name in names}],
               "model")
    planted = planted_neurons(info)
    if planted:
        run.record("planted", [{"model": info.id, "site": info.site, "layer": layer,
                                "index": index} for layer, index in planted], "planted")
