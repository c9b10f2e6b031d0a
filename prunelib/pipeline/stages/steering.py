"""The study of steering: contrast right and wrong answers, search for an edit, evaluate it.

Asked for by the section ``steering``; ``search`` and ``evaluate`` are its settings too. What is
searched, and how, is as much as for a ranking of components.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from prunelib.engines.base import Canary
from prunelib.errors import UserError
from prunelib.interventions.ablation import BASELINE
from prunelib.interventions.contrast import Contrast
from prunelib.interventions.own_steering import make_steering, try_method
from prunelib.interventions.steering import Steering, place_width
from prunelib.models import ModelInfo
from prunelib.pipeline.stages.canary import checked
from prunelib.pipeline.stages.contrasts import PROBED_LAYERS, contrast_prompts, contrasted
from prunelib.pipeline.stages.evaluation import engine_of, evaluate_job, with_baseline
from prunelib.pipeline.stages.intervention_records import InterventionRecord, record_interventions
from prunelib.pipeline.stages.leaderboard import leaderboard
from prunelib.pipeline.stages.lm_eval import lm_eval, lm_eval_count, lm_eval_tokens
from prunelib.pipeline.stages.search import decided, request_count, rule_of, searched
from prunelib.pipeline.stages.steering_search import SteeringJob
from prunelib.pipeline.stages.study import (
    Count,
    Lengths,
    Study,
    Summary,
)
from prunelib.pipeline.units.left_out import usable
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import PromptsRef
from prunelib.pipeline.units.steps import Step, offers, together
from prunelib.pipeline.units.unit import Unit
from prunelib.recipe.attribution import EACH_TASK
from prunelib.recipe.recipe import Recipe
from prunelib.recipe.steering import SteeringMethodSpec, SteeringSpec
from prunelib.search.strategies import Grid, Request
from prunelib.vocabulary import Role, Stage

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class _Asked:
    """One steering that is to be found.

    Attributes:
        task: whose prompts it is found on.
        only: the task that it is reported on, or ``None`` for all.
    """

    method: SteeringMethodSpec
    task: str
    seed: int
    only: str | None


class SteeringStudy(Study):
    """Steering: contrasts → search → evaluation."""

    section: ClassVar[str] = "steering"
    settings: ClassVar[type[SteeringSpec]] = SteeringSpec

    def check(self, recipe: Recipe) -> None:
        spec = recipe.settings(SteeringSpec)
        if not _tasks(recipe, spec):
            raise UserError("steering.proxy: each_task stands for the tasks of evaluate.tasks, and "
                            "those of lm-evaluation-harness have no splits to steer by")
        labels = {attribution.label for attribution in recipe.attribution}
        if twice := [m.label for m in spec.methods if spec.label(m) in labels]:
            raise UserError(f"steering: an attribution is called '{twice[0]}' too: give one of "
                            "them another name")
        for name in _tasks(recipe, spec):
            task = recipe.task(name)
            sources = recipe.sources(name, spec.demonstrations)
            if "report" in sources:
                raise UserError(f"steering.demonstrations: {spec.demonstrations} is what is "
                                f"reported of task '{name}'")
            task.check("attribute", spec.shots, spec.prompts, sources)
            if not task.labelled("attribute"):
                raise UserError(f"steering: task '{name}' has no labels in its attribute split, so "
                                "no right answers")
            searched = recipe.task(recipe.search_task(name))
            searched.check(recipe.search.split, recipe.search.shots,
                           recipe.search.examples * (recipe.search.split == "search"))

    def check_model(self, recipe: Recipe, info: ModelInfo) -> None:
        layers = tuple(range(info.layers)) if recipe.search.layers == "all" else (
            recipe.search.layers)
        for method in recipe.settings(SteeringSpec).methods:
            place = method.known.place
            try:
                if place is not None:
                    place_width(info, place)
                else:
                    sizes, _ = grid_shape(method, layers, len(recipe.search.rates), info)
                    try_method(method, layers, sizes, info)
            except UserError as error:
                raise UserError(f"steering: {method.method}: {error}") from error

    def steps(self, run: ModelRun) -> Step[None]:
        spec = run.recipe.settings(SteeringSpec)
        if spec.choose_on == "report":
            run.notes.append(f"{run.info.id}: steering is chosen by the prompts that are reported "
                             "(steering.choose_on: report): its numbers are too good")
        found = yield from together([_found(run, spec, each)
                                     for each in _asked(run.recipe, spec)])
        records = [InterventionRecord(BASELINE, "none", "baseline", main=True), *found]
        record_interventions(run, records, "steering")
        if engine_of(run, Steering()) != engine_of(run, BASELINE):
            run.notes.append(f"{run.info.id}: transformers answers under steering, and once more "
                             "for the untouched model, as vLLM does not steer on a GPU")
        prompt = contrast_prompts(run, spec, _tasks(run.recipe, spec)[0], spec.seeds[0])
        expected = yield from checked(run, {r.intervention: None for r in records},
                                      replace(prompt, indices=prompt.indices[:1]))
        yield offers([*_evaluations(run, records, expected),
                      *lm_eval(run, [r.intervention for r in records], expected)])

    def counts(self, recipe: Recipe, layers: int, heads: int) -> dict[Stage, Count]:
        spec, asked = recipe.settings(SteeringSpec), _asked(recipe, recipe.settings(SteeringSpec))
        chosen = layers if recipe.search.layers == "all" else len(recipe.search.layers)
        evaluate, beside = recipe.evaluate, not recipe.attribution
        cells = len(evaluate.tasks) * len(evaluate.shots) * len(evaluate.seeds)
        reported = sum(1 if a.only and not evaluate.transfer else len(evaluate.tasks)
                       for a in asked) * len(evaluate.shots) * len(evaluate.seeds)
        harness = lm_eval_count(recipe)
        searches = Count()
        for each in asked:
            known = each.method.known
            sizes = known.sizes and (each.method.sizes or known.sizes)
            most = request_count(recipe.search.strategy, len(sizes) or chosen,
                                 recipe.search.examples).most
            searches += Count(1, most)  # two numbers of components may be the same steering
        prompts = {(recipe.search_task(a.task), a.task, a.seed) for a in asked}
        return {
            "attribute": _contrast_count(recipe, spec, asked, chosen),
            # The untouched model may have been asked by the study of neurons.
            "search": searches + Count(beside, len(prompts)),
            "canary": Count(beside, 1 + len(asked)),
            "evaluate": Count(beside * (cells + harness), reported + len(asked) * harness
                              + (cells + harness) * (beside or recipe.engine != "transformers")),
        }

    def tokens(self, recipe: Recipe, info: ModelInfo, lengths: Lengths) -> dict[Stage, float]:
        spec, asked = recipe.settings(SteeringSpec), _asked(recipe, recipe.settings(SteeringSpec))
        search, evaluate = recipe.search, recipe.evaluate
        layers = info.layers if search.layers == "all" else len(search.layers)
        read = {(a.task, a.seed, a.method.shuffled, probes) for a in asked
                for probes in {False, a.method.known.probes}}
        return {
            "attribute": sum(2 * spec.prompts * lengths(task, "attribute", spec.shots)
                             for task, *_ in read),
            # Answers, and once more for their margins.
            "search": sum(2 * layers * len(search.rates) * search.examples
                          * lengths(recipe.search_task(a.task), search.split, search.shots)
                          for a in asked),
            "canary": (1 + len(asked)) * lengths(asked[0].task, "attribute", spec.shots),
            "evaluate": len(evaluate.seeds) * sum(
                lengths(task, "report", shots) * recipe.examples(task)
                * (1 + sum(a.only in (None, task) or evaluate.transfer for a in asked))
                for task in evaluate.tasks for shots in evaluate.shots)
            + (1 + len(asked)) * lm_eval_tokens(recipe, info),
        }

    def summary(self, connection: duckdb.DuckDBPyConnection, run: str) -> Summary | None:
        pruned = connection.sql(
            "SELECT 1 FROM _labels WHERE run = $1 AND role = 'grid' AND rate IS NOT NULL LIMIT 1",
            params=[run]).fetchall()
        # The study of neurons shows the same table.
        return None if pruned else leaderboard(connection, run)


STUDY = SteeringStudy()


def _tasks(recipe: Recipe, spec: SteeringSpec) -> tuple[str, ...]:
    """Tasks on whose prompts steerings are found."""
    return recipe.evaluate.tasks if spec.proxy == EACH_TASK else (spec.proxy,)


def _asked(recipe: Recipe, spec: SteeringSpec) -> list[_Asked]:
    return [_Asked(method, task, seed, task if spec.proxy == EACH_TASK else None)
            for method in spec.methods for task in _tasks(recipe, spec) for seed in spec.seeds]


def _contrast_count(recipe: Recipe, spec: SteeringSpec, asked: list[_Asked], layers: int) -> Count:
    """Units that contrast answers; prompts without a wrong answer are left out."""
    blocks, probes = set(), set()
    for each in asked:
        key = (each.task, each.seed, each.method.shuffled)
        blocks.add(key)
        if each.method.known.probes:
            probes.add(key)
    probing = math.ceil(layers / PROBED_LAYERS) * len(probes)
    most = math.ceil(spec.prompts / spec.block) * len(blocks)
    return Count(len(blocks) + probing, most + probing)


def _found(run: ModelRun, spec: SteeringSpec, asked: _Asked) -> Step[InterventionRecord]:
    """Contrast, try candidates, choose, and record what was tried."""
    method = asked.method.known
    sample = contrast_prompts(run, spec, asked.task, asked.seed)
    contrast, used = yield from contrasted(run, spec, sample, asked.method.shuffled, method.probes)
    run.record("attribution_units", [
        {"model": run.info.id, "method": spec.label(asked.method), "proxy": asked.task,
         "seed": asked.seed, "used_unit": unit} for unit in sorted(used)], "scores")
    prompts = _searched(run, spec, asked, sample)
    candidates = _candidates(run, asked.method, contrast)
    grid = Grid(candidates, len(prompts.indices), dict.fromkeys((p for p, _ in candidates), 1.0),
                rule_of(run))

    def unit_of(request: Request) -> Unit:
        some = replace(prompts, indices=prompts.indices[request.start : request.stop])
        job = SteeringJob(run.spec.dtype, some, run.format_and_scoring(some.task.name)[1],
                          cast("tuple[Steering, ...]", request.ablations))
        return run.unit(job, len(job.steerings) * run.info.layers * len(some.indices))

    cells, choice = yield from decided(run, prompts, grid, unit_of)
    about: dict[str, Any] = {
        "seed": asked.seed if len(spec.seeds) > 1 else None, "only": asked.only,
        "proxy": prompts.task.name, "samples": len(sample.indices)}

    def record(steering: Any, role: Role, size: int | None, strength: float | None
               ) -> InterventionRecord:
        return InterventionRecord(
            steering, spec.label(asked.method), role,
            layer=None if method.sizes else size, strength=strength, **about)

    record_interventions(run, [record(c.ablation, "grid", c.layer, c.rate) for c in cells], "grid")
    chosen = (record(BASELINE, "chosen", None, None) if choice is None else
              record(choice.ablation, "chosen", choice.layer, choice.rate))
    return chosen


def _searched(run: ModelRun, spec: SteeringSpec, asked: _Asked, sample: PromptsRef) -> PromptsRef:
    """The examples that decide."""
    if spec.choose_on != "report":
        return searched(run, asked.task, sample)
    evaluate, task = run.recipe.evaluate, run.recipe.search_task(asked.task)
    return usable(run, run.prompts(
        task, "report", evaluate.shots[0], evaluate.seeds[0], range(run.recipe.examples(task)),
        evaluate.demonstrations), run.format_and_scoring(task)[1])


def _candidates(run: ModelRun, method: SteeringMethodSpec, contrast: Contrast
                ) -> dict[tuple[int, float], Steering]:
    """As many steerings as a ranking has cells, by layer (or number of components) and strength."""
    sizes, steps = grid_shape(method, run.layers, len(run.recipe.search.rates), run.info)
    strongest = method.strongest or method.known.strongest
    return {(size, strength): make_steering(method, contrast, size, strength, run.info)
            for size in sizes
            for strength in (strongest * (i + 1) / steps for i in range(steps))}


def grid_shape(method: SteeringMethodSpec, layers: tuple[int, ...], rates: int, info: ModelInfo
               ) -> tuple[list[int], int]:
    """Layers (or numbers of components) that are tried, and how many strengths of each.

    Their product is that of layers and rates. Of the numbers that a model has, as many are taken
    as divide it, evenly spread.
    """
    known = method.known
    if not known.sizes:
        return list(layers), rates
    sizes = sorted(set(method.sizes or known.sizes))
    if known.place is not None:
        components = len(layers) * (info.heads if known.place == "head" else
                                    place_width(info, known.place))
        sizes = [size for size in sizes if size <= components] or [components]
    cells = len(layers) * rates
    count = max(n for n in range(1, len(sizes) + 1) if cells % n == 0)
    spread = [sizes[round(i * (len(sizes) - 1) / max(1, count - 1))] for i in range(count)]
    return spread, cells // count


def _evaluations(run: ModelRun, records: list[InterventionRecord], expected: dict[str, Canary]
                 ) -> Iterator[Unit]:
    """Every choice on the tasks that it is reported on, beside the untouched model."""
    spec = run.recipe.evaluate
    passes = {(r.intervention, task): None for r in records
              for task in (spec.tasks if r.only is None or spec.transfer else (r.only,))}
    for steering, task in passes:
        for shots in spec.shots:
            for seed in spec.seeds:
                for job in with_baseline(evaluate_job(
                        run, task, shots, seed, run.recipe.examples(task), steering,
                        expected[steering.digest]), expected[BASELINE.digest]):
                    yield run.unit(job)
