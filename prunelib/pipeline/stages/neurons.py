"""The study of neurons: score them, search the grid for an ablation, evaluate it, compare.

Asked for by the section ``attribution``; the sections ``search``, ``controls`` and ``evaluate`` are
its settings too.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from prunelib.attribution import quadrature, shifted_nodes
from prunelib.attribution.sampling import enough, query_blocks
from prunelib.errors import UserError
from prunelib.interventions.ablation import BASELINE
from prunelib.models import ModelInfo
from prunelib.pipeline.stages.attribution import POOL, POOLS, attributed, pools, rank
from prunelib.pipeline.stages.attribution_check import check_attribution
from prunelib.pipeline.stages.canary import checked
from prunelib.pipeline.stages.capability import capability, capability_tokens
from prunelib.pipeline.stages.evaluation import evaluate_job
from prunelib.pipeline.stages.fine_tuning import fine_tuning
from prunelib.pipeline.stages.intervention_records import distinct
from prunelib.pipeline.stages.leaderboard import leaderboard
from prunelib.pipeline.stages.lm_eval import lm_eval, lm_eval_count, lm_eval_tokens
from prunelib.pipeline.stages.rankings import Ranking, random_rankings
from prunelib.pipeline.stages.search import request_count, search, searched
from prunelib.pipeline.stages.study import (
    Count,
    Lengths,
    Study,
    Summary,
    exactly,
)
from prunelib.pipeline.stages.task_vectors import task_vectors
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.steps import Step, UnitsFailed, offers, together
from prunelib.recipe.arms import RankingRequest
from prunelib.recipe.attribution import AttributionSpec
from prunelib.recipe.recipe import Recipe
from prunelib.tasks import draw, numbers
from prunelib.vocabulary import Stage

if TYPE_CHECKING:
    import duckdb


class Neurons(Study):
    """Neurons: attribution → search → evaluation, beside random neurons and fine-tuning."""

    section: ClassVar[str] = "attribution"
    settings: ClassVar[type[AttributionSpec]] = AttributionSpec

    def check_model(self, recipe: Recipe, info: ModelInfo) -> None:
        layers = recipe.search.layers
        missing = [] if layers == "all" else [i for i in layers if i >= info.layers]
        if missing:
            raise UserError(f"search.layers: model '{info.id}' has layers 0 to {info.layers - 1}, "
                            f"not {missing[0]}")
        check_attribution(recipe, info)

    def steps(self, run: ModelRun) -> Step[None]:
        ranked = yield from together([_ranking(run, r) for r in run.recipe.ranking_requests()])
        rankings = [ranking for ranking in ranked if ranking is not None]
        main = [ranking for ranking in rankings if ranking.request.main]
        controls = [control for ranking in main for control in random_rankings(run, ranking)]
        if run.recipe.deadline is None:
            yield from _comparison(run, rankings + controls, first=True, extras=True)
        else:  # two searches instead of one, so that the main comparison is there early
            yield from _comparison(run, main, first=True, extras=False)
            yield from _comparison(run, rankings + controls, first=False, extras=True)

    def in_order(self, recipe: Recipe) -> bool:
        beside = recipe.controls.fine_tuning or recipe.evaluate.task_vectors
        return recipe.deadline is None and not beside  # with these, stages come twice

    def counts(self, recipe: Recipe, layers: int, heads: int) -> dict[Stage, Count]:
        searched = layers if recipe.search.layers == "all" else len(recipe.search.layers)
        return {"attribute": _attribute_count(recipe, searched),
                "search": _search_count(recipe, searched),
                "canary": _ablations(recipe),
                "evaluate": _evaluate_count(recipe)}

    def tokens(self, recipe: Recipe, info: ModelInfo, lengths: Lengths) -> dict[Stage, float]:
        search, evaluate, requests = recipe.search, recipe.evaluate, recipe.ranking_requests()
        chosen = range(info.layers) if search.layers == "all" else search.layers
        above = sum(info.layers - layer for layer in chosen) / info.layers
        searched = [lengths(recipe.search_task(request.task), search.split, search.shots)
                    * (1 + recipe.controls.random_searches * request.main) for request in requests]
        reported = sum(lengths(task, "report", shots) * recipe.examples(task)
                       for task in evaluate.tasks for shots in evaluate.shots)
        ablations, asked = _ablations(recipe).most, 0
        if evaluate.capability:
            asked = ablations * (1 + len(evaluate.capability.tasks))
        asked += ablations * lm_eval_count(recipe)
        share = ((_evaluate_count(recipe).most - asked)
                 / (len(evaluate.tasks) * len(evaluate.shots) or 1))
        return {
            "attribute": sum(
                r.spec.prompts * lengths(r.task, "attribute", r.spec.shots)
                * r.spec.computation.cost(above, info.width) for r in requests),
            "search": len(chosen) * len(search.rates) * search.examples * sum(searched) * 2,
            "canary": ablations * searched[0],
            "evaluate": share * reported
            + ablations * (capability_tokens(recipe, info, lengths)
                           + lm_eval_tokens(recipe, info)),
        }

    def summary(self, connection: duckdb.DuckDBPyConnection, run: str) -> Summary | None:
        return leaderboard(connection, run)


STUDY = Neurons()


def _ranking(run: ModelRun, request: RankingRequest) -> Step[Ranking | None]:
    """The ranking that is asked for; without it, for a reason that is reported, others go on."""
    try:
        return (yield from rank(run, request))
    except (UserError, UnitsFailed) as error:
        if request.main:  # with which everything is compared
            raise
        where = "" if isinstance(error, UserError) else f"attribution '{request.spec.label}': "
        run.skipped.append(f"{where}{error}")
        return None


def _comparison(run: ModelRun, rankings: list[Ranking], first: bool, extras: bool) -> Step[None]:
    """Search the grid, choose, evaluate: the main comparison ``first``, then ``extras``."""
    urgency = 0 if first else 1
    records = yield from search(run, rankings, urgency)
    prompts = searched(run, rankings[0].request.task, rankings[0].sample)
    expected = yield from checked(run, distinct(records),
                                  replace(prompts, indices=prompts.indices[:1]), urgency)
    # Only a deadline is worth ending an engine whose model still has extras to do.
    hurry = run.recipe.deadline is not None
    urgent = {r.intervention.digest for r in records if r.main}
    spec = run.recipe.evaluate
    passes = {(r.intervention, 0, task): None for r in records
              for task in (spec.tasks if r.only is None or spec.transfer else (r.only,))}
    if extras:  # the baseline twice, for the noise floor
        passes |= {(BASELINE, 1, task): None for task in spec.tasks}
    units = [
        run.unit(evaluate_job(run, task, shots, seed, run.recipe.examples(task), ablation,
                              expected[ablation.digest], repeat),
                 priority=int(hurry and (repeat > 0 or ablation.digest not in urgent)))
        for ablation, repeat, task in passes
        for shots in spec.shots
        for seed in spec.seeds
    ]  # fmt: skip
    if extras:
        units += capability(run, distinct(records), expected, int(hurry))
        units += lm_eval(run, distinct(records), expected, int(hurry))
    yield offers(units)
    if extras:
        # What is not pruning comes after the engine is done.
        yield offers(fine_tuning(run, rankings) + task_vectors(run, records))


def _sure(recipe: Recipe) -> list[RankingRequest]:
    """Rankings that no model leaves out for want of prompts."""
    return [r for r in recipe.ranking_requests() if r.main or r.spec.choose == "random"]


def _scoring(request: RankingRequest, *beside: str) -> tuple[AttributionSpec, str, int]:
    """What the units of an attribution depend on, but for the keys ``beside``.

    Two of the same share their units.
    """
    plain, spec = AttributionSpec.model_fields, request.spec
    same = spec.model_copy(update={
        "name": None, "proxy": "", "seeds": (0,), "tolerance": None if spec.by_prompt else 1.0,
        **{key: plain[key].default for key in ("rank", "max_nodes", "max_prompts", "overlap",
                                               "aggregate_prompts", *beside)}})
    return same, request.task, request.seed


def _attribute_count(recipe: Recipe, searched: int) -> Count:
    first: set[tuple[Any, ...]] = set()
    later: set[tuple[Any, ...]] = set()
    least: dict[tuple[Any, ...], int] = {}
    most: dict[tuple[Any, ...], int] = {}
    for request in recipe.ranking_requests():
        spec, exact = request.spec, _scoring(request)
        if spec.choose != "random":
            looked = [(request.task, spec.shots, request.seed, spec.demonstrations, *pool)
                      for pool in _pools(recipe, request)]
            first.add(looked[0])
            later.update(looked)
        found = _score_count(recipe, request, searched)
        if request in _sure(recipe):  # the prompts of one may be among those of another
            key = _scoring(request, "choose", "prompts", "block")
            least[key] = max(found.least, least.get(key, 0))
        most[exact] = max(found.most, most.get(exact, 0))
    return Count(len(first) + sum(least.values()), len(later) + sum(most.values()))


def _pools(recipe: Recipe, request: RankingRequest) -> list[list[int]]:
    """Prompts that are answered at most to find such as are wanted, pool by pool."""
    try:
        return pools(recipe, request)
    except UserError:  # the task is not on this machine
        block = POOL * request.spec.prompts
        return [list(range(i * block, (i + 1) * block)) for i in range(POOLS)]


def _attributed(recipe: Recipe, request: RankingRequest) -> int:
    """How many prompts are attributed to begin with: fewer than asked for in a small pool."""
    asked = request.spec.prompts
    if request.spec.choose != "random":
        return asked
    try:
        return len(attributed(recipe, request, asked))
    except UserError:  # the task is not on this machine
        return asked


def _searched(recipe: Recipe, request: RankingRequest) -> int:
    """How many examples decide."""
    spec = recipe.search
    if spec.split == "attribute":
        return _attributed(recipe, request)
    try:
        name = recipe.search_task(request.task)
        return len(numbers(recipe.task(name), split="search", shots=spec.shots, seed=spec.seed,
                           count=spec.examples,
                           demonstrations=recipe.sources(name, spec.demonstrations)))
    except UserError:  # the task is not on this machine
        return spec.examples


def _score_count(recipe: Recipe, request: RankingRequest, searched: int) -> Count:
    spec, method = request.spec, request.spec.computation
    groups = (searched if method.by_layer else 1) if method.runs else 0
    if not method.quadrature:
        return exactly(groups)
    blocks = _blocks(recipe, request)
    levels = shifted_nodes.NODES if spec.by_prompt else quadrature.NODES
    raised = max(1, sum(nodes <= spec.max_nodes for nodes in levels))
    return Count(enough(blocks, spec.prompts) * groups, len(blocks) * groups * raised)


def _blocks(recipe: Recipe, request: RankingRequest) -> list[list[int]]:
    """Blocks of the prompts that are attributed at most; full ones where they are not known."""
    spec, asked = request.spec, request.spec.most_prompts
    queries = [str(i) for i in range(asked)]
    with suppress(UserError):  # the task is not on this machine
        if spec.choose == "random":
            queries = [example.query for example in draw(
                recipe.task(request.task), split="attribute", shots=spec.shots, seed=request.seed,
                count=asked, demonstrations=recipe.sources(request.task, spec.demonstrations))]
    return query_blocks(queries, spec.block)


def _search_count(recipe: Recipe, searched: int) -> Count:
    """One unit for each request of the strategy, and one for the untouched model."""
    def prompts(request: RankingRequest, *chosen: str) -> tuple[Any, ...]:
        spec, attributed = request.spec, recipe.search.split == "attribute"
        return (recipe.search_task(request.task), *(
            (request.seed, spec.shots, spec.prompts, *chosen) if attributed else ()))

    requests, random = recipe.ranking_requests(), recipe.controls.random_searches
    sure = {prompts(r) for r in _sure(recipe)}  # those chosen in two ways may be the same
    controls = len({(prompts(r), r.spec.projection) for r in requests if r.main}) * random
    found = [request_count(recipe.search.strategy, searched, _searched(recipe, request))
             for request in requests]
    each = Count(min(count.least for count in found), max(count.most for count in found))
    return Count(len(sure) + each.least * (len(sure) + controls),
                 len({prompts(r, r.spec.choose) for r in requests})
                 + each.most * (len(requests) + controls))


def _always_prunes(recipe: Recipe) -> bool:
    """Whether a search must not answer "switch nothing off"."""
    return recipe.search.nothing == "excluded"


def _ablations(recipe: Recipe) -> Count:
    """Different ablations, the empty one included: searches may choose the same."""
    requests, controls = recipe.ranking_requests(), recipe.controls
    main = sum(request.main for request in requests)
    return Count(1 + _always_prunes(recipe),
                 1 + len(requests) * (1 + controls.random) + controls.random_searches * main)


def _evaluate_count(recipe: Recipe) -> Count:
    evaluate, requests = recipe.evaluate, recipe.ranking_requests()
    tasks, controls = len(evaluate.tasks), recipe.controls
    of_task = len(evaluate.shots) * len(evaluate.seeds)

    def reported(request: RankingRequest, transfer: bool) -> int:
        return tasks if request.only is None or transfer else 1

    def covered(transfer: bool) -> int:
        """Tasks of one ablation, if every search chose that one, or none."""
        if not _always_prunes(recipe):
            return 0
        own = {r.only for r in _sure(recipe)}
        return tasks if None in own or transfer else len(own)

    passes = sum((1 + controls.random + controls.random_searches * r.main)
                 * reported(r, evaluate.transfer) for r in requests)
    count = Count((2 * tasks + covered(evaluate.transfer)) * of_task,
                  (2 * tasks + passes) * of_task)
    if controls.fine_tuning:
        tuned = sum(reported(r, False) * of_task + lm_eval_count(recipe)
                    for r in requests if r.main)
        # The untouched model answers once more where vLLM has answered for it.
        count += Count(tuned, tuned * (1 + (recipe.engine != "transformers")))
    if evaluate.task_vectors:
        count += Count(tasks + covered(False), tasks + sum(reported(r, False) for r in requests))
    beside, ablations = lm_eval_count(recipe), _ablations(recipe)
    if evaluate.capability:
        beside += 1 + len(evaluate.capability.tasks)
    return count + Count(ablations.least * beside, ablations.most * beside)
