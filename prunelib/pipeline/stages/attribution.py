"""The attribution stage: score the components of every layer, and rank them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from prunelib.attribution import quadrature
from prunelib.attribution.integrated_gradients import LayerScores, NodeGradients, layer_scores
from prunelib.attribution.objectives.base import objective_digest
from prunelib.attribution.sampling import Moments, Sampling, moments, query_blocks, sampling
from prunelib.errors import UserError
from prunelib.interventions.ablation import BASELINE
from prunelib.pipeline.stages.rankings import Ranking, pruned_site, scored_site
from prunelib.pipeline.stages.search import GridJob
from prunelib.pipeline.units.left_out import usable
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import PromptsRef
from prunelib.pipeline.units.steps import Found, Step, UnitsFailed, needs
from prunelib.pipeline.units.unit import Job, Row, Unit, Workplace
from prunelib.recipe.arms import RankingRequest
from prunelib.recipe.attribution import ObjectiveSpec
from prunelib.recipe.recipe import Recipe
from prunelib.search.selection import in_order, positive_mass, random_order
from prunelib.tasks import numbers
from prunelib.vocabulary import Purpose, Stage

Array = NDArray[np.float64]
Projection = Literal["gate", "up", "down"]
#: Paths along which gradients are integrated.
IntegratedPath = Literal["layer", "joint", "last_position"]

#: Prompts answered at a time to find one answered correctly, or wrongly, and how often at most.
POOL, POOLS = 4, 16


@dataclass(frozen=True)
class _PartsJob(Job):
    """A job whose rows are what scores are made of."""

    stage: ClassVar[Stage] = "attribute"
    table: ClassVar[str] = "attribution_parts"

    objective: ObjectiveSpec = field(compare=False)  # its digest identifies it
    objective_digest: str
    projection: Projection | None
    prompts: PromptsRef
    #: One layer, or those that are scored together.
    layers: tuple[int, ...]

    def _where(self) -> str:
        return f"layer {self.layers[0]}" if len(self.layers) == 1 else f"{len(self.layers)} layers"

    def _part(self, unit: Unit, layer: int, level: int, alpha: float, sums: Any,
              totals: Any = (), values: Any = (), found: Moments | None = None) -> Row:
        return {"model": unit.model.id, "layer": layer, "start": self.prompts.indices[0],
                "level": level, "alpha": alpha, "sums": sums, "totals": totals, "values": values,
                "squares": [], "weighted": [], "half": [],
                "unit_id": unit.id} | ({} if found is None else vars(found))


@dataclass(frozen=True)
class AttributeJob(_PartsJob):
    """∂F/∂s at the nodes that one quadrature level adds, for one block of prompts."""

    kind: ClassVar[str] = "attribute"

    path: IntegratedPath
    released: bool
    level: int

    def describe(self) -> str:
        return (f"{self._where()}, {len(self.prompts.indices)} prompts from "
                f"{self.prompts.indices[0]}, level {self.level}")

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        from prunelib.attribution.integrated_gradients import PATH_ROWS, Path, block_gradients
        from prunelib.attribution.objectives.base import make_objective

        loaded = worker.loaded(unit.model, self.dtype)
        prompts = self.prompts.encode(loaded.tokenizer)
        path = Path(self.layers, *loaded.adapter.projection(self.projection),
                    last_position=self.path == "last_position", released=self.released)
        objective = make_objective(self.objective, self.objective_digest)
        found = block_gradients(loaded, path, prompts, objective, quadrature.new_nodes(self.level),
                                PATH_ROWS >> worker.batch_halvings,
                                None if self.level else quadrature.weights(0))
        queries, rows = self.prompts.queries, []
        for layer, part in zip(self.layers, found, strict=True):
            rows += [self._part(unit, layer, self.level, float(alpha), part.sums[i],
                                part.totals[i], part.values[i])
                     for i, alpha in enumerate(part.alphas)]
            if part.each is not None:
                rows[-1] |= vars(moments(part.each, queries))
        return rows


@dataclass(frozen=True)
class ScoreJob(_PartsJob):
    """Scores of every neuron of some layers by another method than integrated gradients."""

    kind: ClassVar[str] = "score"

    method: str

    def describe(self) -> str:
        return f"{self.method}, {self._where()}"

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        from prunelib.attribution.integrated_gradients import PATH_ROWS, Path
        from prunelib.attribution.objectives.base import make_objective
        from prunelib.attribution.scorers.base import load_scorer

        loaded = worker.loaded(unit.model, self.dtype)
        prompts = self.prompts.encode(loaded.tokenizer)
        path = Path(self.layers, *loaded.adapter.projection(self.projection))
        objective = make_objective(self.objective, self.objective_digest)
        scores = load_scorer(self.method)(loaded, path, prompts, objective,
                                          PATH_ROWS >> worker.batch_halvings)
        queries = self.prompts.queries
        return [self._part(unit, layer, 0, 1.0, of_layer * len(prompts)) if of_layer.ndim == 1
                else self._part(unit, layer, 0, 1.0, of_layer.sum(0),
                                found=moments(of_layer, queries))
                for layer, of_layer in zip(self.layers, scores, strict=True)]


@dataclass(frozen=True)
class PoolJob(GridJob):
    """What the untouched model answers to prompts, so that attribution can choose among them."""

    kind: ClassVar[str] = "pool"
    stage: ClassVar[Stage] = "attribute"
    purpose: ClassVar[Purpose] = "pool"


def rank(run: ModelRun, request: RankingRequest) -> Step[Ranking]:
    """Choose prompts, score every layer, and record the scores and what they were made of."""
    spec = request.spec
    used: set[str] = set()
    sample = yield from _noting(_sample(run, request), used)
    method = spec.computation
    if not method.runs:
        scores = _shuffled(run, request, sample)
    else:
        score = _integrated if method.quadrature else _scored
        scores = yield from _noting(score(run, request, sample), used)
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
        return drawn(range(spec.prompts))
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


def _groups(run: ModelRun, request: RankingRequest) -> list[tuple[int, ...]]:
    """Layers that are scored together."""
    if request.spec.computation.by_layer:
        return [(layer,) for layer in run.layers]
    return [run.layers]


def _integrated(run: ModelRun, request: RankingRequest, sample: PromptsRef
                ) -> Step[dict[int, Array]]:
    """Raise the nodes of every layer until the error of its mean scores is small enough."""
    spec = request.spec
    groups = _groups(run, request)
    queries = sample.queries
    blocks = query_blocks(queries, spec.block)
    samples: dict[int, Sampling] = {}
    # Layers scaled together → layer → blocks of prompts → levels.
    parts: dict[tuple[int, ...], dict[int, list[list[NodeGradients]]]] = {g: {} for g in groups}
    scores: dict[int, Array] = {}
    for level, nodes in enumerate(quadrature.NODES):
        units = {group: _attribute_units(run, request, sample, blocks, group, level)
                 for group in parts}
        yield needs(unit for of_group in units.values() for unit in of_group)
        for group in list(parts):
            found, known = _gradients(run, units[group], group)
            for layer in group:
                if level == 0:
                    samples[layer] = sampling(
                        [of_block[layer] for of_block in known],
                        [quadrature.weights(0) @ new[layer].sums for new in found],
                        [[queries[i] for i in block] for block in blocks])
                before = parts[group].get(layer) or [[] for _ in found]
                parts[group][layer] = [[*old, new[layer]]
                                       for old, new in zip(before, found, strict=True)]
            results = {layer: layer_scores(parts[group][layer], level, spec.variant == "released")
                       for layer in group}
            error = max(result.error for result in results.values())
            if error <= spec.tolerance or nodes >= spec.max_nodes:
                del parts[group]
                for layer, result in results.items():
                    scores[layer] = result.scores
                    _record_scores(run, request, sample, layer, result.scores,
                                   samples[layer].scaled(result.scale), nodes, result)
                _record_gaps(run, request, nodes, results, [i for block in blocks for i in block])
        if not parts:
            break
    return scores


def _attribute_units(run: ModelRun, request: RankingRequest, sample: PromptsRef,
                     blocks: list[list[int]], layers: tuple[int, ...], level: int) -> list[Unit]:
    spec = request.spec
    above = run.info.layers - layers[0]
    return [
        run.unit(
            AttributeJob(
                objective=spec.objective,
                objective_digest=objective_digest(spec.objective),
                path=cast("IntegratedPath", spec.path),
                released=spec.variant == "released",
                projection=spec.projection,
                prompts=replace(sample, indices=tuple(sample.indices[i] for i in block)),
                layers=layers,
                level=level,
                dtype=run.spec.dtype,
            ),
            cost=above * len(quadrature.new_nodes(level)),
        )
        for block in blocks
    ]


def _gradients(run: ModelRun, units: list[Unit], layers: tuple[int, ...]
               ) -> tuple[list[dict[int, NodeGradients]], list[dict[int, Moments]]]:
    """Block → layer → what its unit found at each node, and over queries."""
    table = run.store.read("attribution_parts", [unit.id for unit in units])
    owners, where = np.array(table["unit_id"].to_pylist()), np.array(table["layer"].to_pylist())
    found, known = [], []
    for unit in units:
        of_unit, over_queries = {}, {}
        for layer in layers:
            rows = table.filter((owners == unit.id) & (where == layer))
            of_unit[layer] = NodeGradients(*(np.array(rows[name].to_pylist())
                                             for name in ("alpha", "sums", "totals", "values")))
            over_queries[layer] = _moments(rows.slice(rows.num_rows - 1).to_pylist()[0])
        found.append(of_unit)
        known.append(over_queries)
    return found, known


def _moments(row: Row) -> Moments:
    return Moments(*(np.array(row[name]) for name in ("squares", "weighted", "half")))


def _scored(run: ModelRun, request: RankingRequest, sample: PromptsRef
            ) -> Step[dict[int, Array]]:
    """Scores of another method than integrated gradients."""
    spec = request.spec
    units = [run.unit(ScoreJob(run.spec.dtype, spec.objective, objective_digest(spec.objective),
                               spec.projection, sample, group, spec.computation.name),
                      cost=run.info.layers - group[0])
             for group in _groups(run, request)]
    yield needs(units)
    scores: dict[int, Array] = {}
    queries = sample.queries
    for row in sorted(run.store.read("attribution_parts", [unit.id for unit in units]).to_pylist(),
                      key=lambda row: row["layer"]):
        sums = np.array(row["sums"])
        scores[row["layer"]] = sums / len(queries)
        _record_scores(run, request, sample, row["layer"], scores[row["layer"]],
                       sampling([_moments(row)], [sums], [queries]) if row["squares"] else None)
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
        _record_scores(run, request, sample, layer, scores[layer])
    return scores


def _about(run: ModelRun, request: RankingRequest, layer: int, nodes: int | None) -> dict[str, Any]:
    return {"model": run.info.id, "method": request.spec.label, "layer": layer, "nodes": nodes,
            "objective": (request.spec.objective.label
                          if request.spec.computation.needs_objective else None),
            "proxy": request.task, "seed": request.seed}


def _record_scores(
    run: ModelRun, request: RankingRequest, sample: PromptsRef, layer: int, scores: Array,
    known: Sampling | None = None, nodes: int | None = None, found: LayerScores | None = None,
) -> None:
    order = request.spec.rank
    setting = {
        "shots": sample.shots, "format": str(sample.format),
        "site": scored_site(run.info, request.spec),
        "prompts": len(sample.indices), "queries": len(set(sample.queries)),
        "error_estimate": None if found is None else found.error,
        "completeness_error": None if found is None else float(np.median(np.abs(found.gaps))),
    }
    errors = None if known is None else known.errors
    halves = (None, None) if known is None or known.halves is None else tuple(
        {index: place for place, index in enumerate(in_order(half, order), 1)}
        for half in known.halves)
    run.record("attributions", [
        _about(run, request, layer, nodes) | setting
        | {"index": index, "score": float(scores[index]), "rank": place,
           "standard_error": None if errors is None else float(errors[index]),
           "first_half_rank": None if halves[0] is None else halves[0][index],
           "second_half_rank": None if halves[1] is None else halves[1][index]}
        for place, index in enumerate(in_order(scores, order), 1)
    ], "scores")


def _record_gaps(run: ModelRun, request: RankingRequest, nodes: int,
                 found: dict[int, LayerScores], order: list[int]) -> None:
    """Completeness gaps of prompts, which are scored in this ``order``.

    Layers scaled together explain one change together, so have one gap.
    """
    if request.spec.variant == "released":  # its scores are not meant to add up to anything
        return
    first = min(found)
    totals = np.sum([result.totals for result in found.values()], axis=0)
    run.record("completeness_gaps", [
        _about(run, request, first, nodes)
        | {"example": i, "total": float(total), "delta": float(delta), "gap": float(total - delta)}
        for i, total, delta in sorted(zip(order, totals, found[first].deltas, strict=True))
    ], "gaps")
