"""The attribution stage: score the components of every layer, and rank them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from prunelib.attribution.objectives.base import objective_digest
from prunelib.attribution.sampling import sampling
from prunelib.errors import UserError
from prunelib.interventions.ablation import BASELINE
from prunelib.own_functions import source_digest
from prunelib.pipeline.stages.attribution_jobs import OwnScoreJob, PoolJob, ScoreJob, moments_in
from prunelib.pipeline.stages.integration import to_tolerance
from prunelib.pipeline.stages.rankings import (
    Ranking,
    pruned_site,
    scored_site,
    scored_together,
)
from prunelib.pipeline.stages.sampled_integration import to_precision
from prunelib.pipeline.stages.score_records import Precision, record_scores
from prunelib.pipeline.units.left_out import usable
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import PromptsRef
from prunelib.pipeline.units.steps import Found, Step, UnitsFailed, needs
from prunelib.recipe.arms import RankingRequest
from prunelib.recipe.recipe import Recipe
from prunelib.search.selection import in_order, positive_mass, random_order
from prunelib.tasks import numbers

Array = NDArray[np.float64]

#: Prompts answered at a time to find one answered correctly, or wrongly, and how often at most.
POOL, POOLS = 4, 16


def rank(run: ModelRun, request: RankingRequest) -> Step[Ranking]:
    """Choose prompts, score every layer, and record the scores and what they were made of."""
    spec = request.spec
    used: set[str] = set()
    sample = yield from _noting(_sample(run, request), used)
    method = spec.computation
    if not method.runs:
        scores = _shuffled(run, request, sample)
    else:
        if not method.quadrature:
            step = _scored(run, request, sample)
        elif spec.tolerance is None:
            step = to_precision(run, request, sample)
        else:
            step = to_tolerance(run, request, sample, spec.tolerance)
        scores = yield from _noting(step, used)
    if used:
        run.record("attribution_units", [
            {"model": run.info.id, "method": spec.label, "proxy": request.task,
             "seed": request.seed, "used_unit": unit} for unit in sorted(used)
        ], "scores")
    orders = {layer: in_order(found, spec.rank) for layer, found in sorted(scores.items())}
    seed = request.seed if len(spec.seeds) > 1 else None
    # A random order knows no layer from another.
    mass = {layer: positive_mass(found) if method.runs else 1.0
            for layer, found in scores.items()}
    site = pruned_site(run.info, spec, run.recipe.search)
    sample = replace(sample, indices=sample.indices[: spec.prompts])
    return Ranking(spec.label, seed, orders, site, request, sample, mass)


def _noting(step: Step[Found], used: set[str]) -> Step[Found]:
    """The same step; the ids of its units are added to ``used``."""
    try:
        batch = next(step)
        while True:
            used.update(unit.id for unit in batch.units)
            try:
                yield batch
            except UnitsFailed as error:
                batch = step.throw(error)
            else:
                batch = next(step)
    except StopIteration as end:
        return cast("Found", end.value)


def _sample(run: ModelRun, request: RankingRequest) -> Step[PromptsRef]:
    """The prompts that are attributed, chosen by what the untouched model answers if asked."""
    spec = request.spec
    scoring = run.format_and_scoring(request.task)[1]

    def drawn(some: Iterable[int]) -> PromptsRef:
        return usable(run, run.prompts(request.task, "attribute", spec.shots, request.seed, some,
                                       spec.demonstrations))

    if spec.choose == "random":
        return drawn(range(spec.most_prompts))
    fitting: list[int] = []
    for pool in (looked := pools(run.recipe, request)):
        unit = run.unit(PoolJob(run.spec.dtype, drawn(pool), scoring,
                                run.info.layers - 1, (BASELINE,)))
        yield needs([unit])
        answers = run.store.read("predictions", [unit.id]).sort_by("example").to_pylist()
        fitting += [row["example"] for row in answers
                    if row["correct"] == (spec.choose == "correct")]
        if len(fitting) >= spec.prompts:
            return drawn(fitting[: spec.prompts])
    raise UserError(
        f"attribution '{spec.label}': of {sum(map(len, looked))} prompts of '{request.task}' the "
        f"model answers {len(fitting)} {spec.choose}ly, fewer than prompts: {spec.prompts}")


def pools(recipe: Recipe, request: RankingRequest) -> list[list[int]]:
    """Prompts that are answered, pool after pool, until there are enough of those asked for."""
    task, block = recipe.task(request.task), POOL * request.spec.prompts
    # A data set ends; other tasks would begin again for ever.
    end = POOLS * block if task.sizes is None else task.queries("attribute")
    found = attributed(recipe, request, end)
    return [found[start : start + block] for start in range(0, len(found), block)]


def attributed(recipe: Recipe, request: RankingRequest, count: int) -> list[int]:
    """Those of the first ``count`` draws for an attribution that were not drawn before."""
    spec = request.spec
    return numbers(recipe.task(request.task), split="attribute", shots=spec.shots,
                   seed=request.seed, count=count,
                   demonstrations=recipe.sources(request.task, spec.demonstrations))


def _scored(run: ModelRun, request: RankingRequest, sample: PromptsRef
            ) -> Step[dict[int, Array]]:
    """Scores of another method than integrated gradients."""
    spec = request.spec
    digest = objective_digest(spec.objective)
    units = []
    for group in scored_together(run, request):
        about = (run.spec.dtype, spec.objective, digest, spec.projection, sample, group,
                 spec.computation.name)
        job = OwnScoreJob(*about, source_digest("scorer", spec.method)) if spec.own else (
            ScoreJob(*about))
        units.append(run.unit(job, cost=run.info.layers - group[0]))
    yield needs(units)
    scores: dict[int, Array] = {}
    queries = sample.queries
    for row in sorted(run.store.read("attribution_parts", [unit.id for unit in units]).to_pylist(),
                      key=lambda row: row["layer"]):
        sums = np.array(row["sums"])
        scores[row["layer"]] = sums / len(queries)
        known = sampling([moments_in(row)], [sums], [queries]) if row["squares"] else None
        record_scores(run, request, sample, row["layer"], scores[row["layer"]],
                      None if known is None else Precision(known.errors, known.halves))
    return scores


def _shuffled(run: ModelRun, request: RankingRequest, sample: PromptsRef
              ) -> dict[int, Array]:
    """Scores that know nothing: minus the place in a random order. Nothing is run for them.

    The orders are others than those of the controls of the same seed, which would be equal to what
    they control.
    """
    width = run.info.components(scored_site(run.info, request.spec))
    scores: dict[int, Array] = {}
    for layer in run.layers:
        order = random_order(width, layer, request.seed, "random attribution")
        scores[layer] = -1 - np.argsort(order).astype(np.float64)
        record_scores(run, request, sample, layer, scores[layer])
    return scores
