"""The first stage: score the components of every layer, and rank them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from prunelib.attribution import quadrature
from prunelib.attribution.custom_objectives import needs_labels, try_objective
from prunelib.attribution.integrated_gradients import LayerScores, NodeGradients, layer_scores
from prunelib.attribution.objectives import objective_digest
from prunelib.components import Site
from prunelib.engines.limits import model_limits
from prunelib.errors import UnitError, UserError
from prunelib.interventions.ablation import BASELINE
from prunelib.models import ModelInfo, adapter_for
from prunelib.models.loading import load_tokenizer
from prunelib.pipeline.units.model_run import Found, ModelRun, Step
from prunelib.pipeline.units.unit import AttributeJob, PoolJob, Prompts, ScoreJob, Unit
from prunelib.recipe.base import GRADIENT_METHODS, AttributionSpec, SearchSpec
from prunelib.recipe.recipe import Arm, Recipe
from prunelib.search.selection import in_order, positive_mass, random_order
from prunelib.tasks import Split, draw
from prunelib.tasks.tokenization import encode

#: Prompts in which answers' first tokens are compared before anything starts.
_LOOK = 20
#: Prompts that are answered at a time to find one that is answered correctly, or wrongly, and how
#: often at most.
POOL, POOLS = 4, 16


@dataclass(frozen=True)
class Ranking:
    """Units of every searched layer, the first to be switched off first.

    Attributes:
        method: what it is called in the tables.
        seed: which of several draws, of prompts or of a random order; ``None`` if there is one.
        orders: layer → indices.
        arm: what it was made for.
        sample: the prompts that were attributed.
        mass: layer → positive scores, summed; a control has that of what it controls.
    """

    method: str
    seed: int | None
    orders: dict[int, tuple[int, ...]]
    site: Site
    arm: Arm
    sample: Prompts
    mass: dict[int, float]

    @property
    def random(self) -> bool:
        """Whether no score is behind it."""
        return self.method == "random_search"


def rank(run: ModelRun, arm: Arm) -> Step[Ranking]:
    """Choose prompts, score every layer, and record the scores and what they were made of."""
    spec = arm.spec
    used: set[str] = set()
    sample = yield from _noting(_sample(run, arm), used)
    integrated = spec.method == "integrated_gradients" and spec.path != "single"
    if spec.method == "random":
        scores = _shuffled(run, arm, sample)
    else:
        score = _integrated if integrated else _scored
        scores = yield from _noting(score(run, arm, sample), used)
    if used:
        run.record("attribution_units", [
            {"model": run.info.id, "method": spec.label, "proxy": arm.task, "seed": arm.seed,
             "used_unit": unit} for unit in sorted(used)
        ], "scores")
    orders = {layer: in_order(found, spec.rank) for layer, found in sorted(scores.items())}
    seed = arm.seed if len(spec.seeds) > 1 else None
    # A random order knows no layer from another.
    mass = {layer: 1.0 if spec.method == "random" else positive_mass(found)
            for layer, found in scores.items()}
    site = pruned_site(run.info, spec, run.recipe.search)
    return Ranking(spec.label, seed, orders, site, arm, sample, mass)


def _noting(step: Step[Found], used: set[str]) -> Step[Found]:
    """The same step; the ids of its units are added to ``used``."""
    try:
        units = next(step)
        while True:
            used.update(unit.id for unit in units)
            yield units
            units = next(step)
    except StopIteration as end:
        return cast("Found", end.value)


def random_rankings(run: ModelRun, ranking: Ranking) -> list[Ranking]:
    """The controls of a ranking: random orders of the same units, for the same search."""
    return [
        Ranking("random_search", seed, {layer: random_components(run, ranking.site, layer, seed)
                                        for layer in run.layers},
                ranking.site, ranking.arm, ranking.sample, ranking.mass)
        for seed in range(run.recipe.controls.random)
    ]


def random_components(run: ModelRun, site: Site, layer: int, seed: int) -> tuple[int, ...]:
    """A seeded random order of a layer's units."""
    return random_order(run.info.components(site), layer, seed)


def check_attribution(recipe: Recipe, info: ModelInfo) -> None:
    """Raise :class:`UserError` if a model's units cannot be scored or pruned as a recipe asks."""
    for spec in recipe.attribution:
        pruned_site(info, spec, recipe.search)
        objective_digest(spec.objective)
    for arm in recipe.arms():
        spec, search = arm.spec, recipe.search
        if (spec.method in GRADIENT_METHODS and spec.objective.name == "copy_shift"
                and spec.objective.tokens == "first" and not spec.objective.gold_only):
            _check_first_tokens(recipe, info, f"attribution '{spec.label}'", arm.task, "attribute",
                                spec.shots, "copy_shift", "objective: {name: copy_shift, tokens: "
                                "all}")
        if spec.method in GRADIENT_METHODS and spec.objective.own:
            _check_own(recipe, arm, info)
        if search.statistic == "margin":
            _check_first_tokens(recipe, info, "search", recipe.search_task(arm), search.split,
                                search.shots, "margin", "statistic: accuracy")


def _check_own(recipe: Recipe, arm: Arm, info: ModelInfo) -> None:
    """Whether a user's own objective gives a value to each of two prompts of the task."""
    spec, task, tokenizer = arm.spec, recipe.task(arm.task), load_tokenizer(info)
    if needs_labels(spec.objective.name) and not task.labelled("attribute"):
        raise UserError(
            f"attribution '{spec.label}': task '{task.name}' has no labels in its attribute split; "
            f"if objective '{spec.objective.name}' reads none, give it the attribute "
            "needs_labels = False")
    drawn = draw(task, split="attribute", shots=spec.shots, seed=arm.seed,
                 count=min(spec.prompts, 2), prompt_format=recipe.format_on("attribute"))
    try:
        prompts = [encode(example, tokenizer) for example in drawn]
        try_objective(spec.objective.name, (prompts * 2)[:2], model_limits(info)[1])
    except (UnitError, UserError) as error:
        raise UserError(f"attribution '{spec.label}': model '{info.id}', task '{task.name}': "
                        f"{error}") from error


def _check_first_tokens(recipe: Recipe, info: ModelInfo, where: str, name: str, split: Split,
                        shots: int, what: str, instead: str) -> None:
    """Whether answers have tokens of their own, and some that differ begin differently."""
    task, tokenizer = recipe.task(name), load_tokenizer(info)
    count = _LOOK if task.sizes is None else min(_LOOK, len(task.split(split)))
    drawn = draw(task, split=split, shots=shots, seed=0, count=count,
                 prompt_format=recipe.format_on(split))
    try:
        shifts = [bool(encode(example, tokenizer).first_copies) for example in drawn
                  if set(example.answers) - {example.gold}]
    except UnitError as error:
        raise UserError(f"{where}: model '{info.id}', task '{name}': {error}") from error
    if shifts and not any(shifts):
        raise UserError(
            f"{where}: to model '{info.id}' all answers of '{name}' begin with the same token, as "
            f"its prompts are written, so {what} compares nothing: use {instead}, or another "
            "format")


def pruned_site(info: ModelInfo, spec: AttributionSpec, search: SearchSpec) -> Site:
    """Where components that were scored are switched off.

    Without biases a neuron whose weight row is zero is off, so ``weight_row`` asks for nothing else
    than ``neuron``. Raises :class:`UserError` if the model does not have what is asked for.
    """
    adapter = adapter_for(info.model_type)
    path, site = adapter.projection(spec.projection)
    if search.prune == "neuron" or not info.mlp_bias:
        return site
    if site != "mlp_hidden" or "mlp_row" not in adapter.sites:
        raise UserError(f"search.prune: '{path}' of model '{info.id}' has a bias, and its weight "
                        "rows cannot be pruned alone: use prune: neuron")
    return "mlp_row"


def _site(run: ModelRun, arm: Arm) -> Site:
    return adapter_for(run.info.model_type).projection(arm.spec.projection)[1]


def _sample(run: ModelRun, arm: Arm) -> Step[Prompts]:
    """The prompts that are attributed, chosen by what the untouched model answers if asked."""
    spec = arm.spec
    if spec.choose == "random":
        return run.prompts(arm.task, "attribute", spec.shots, arm.seed, range(spec.prompts))
    task, block = run.recipe.task(arm.task), POOL * spec.prompts
    # A data set ends; other tasks would begin again for ever.
    end = POOLS * block if task.sizes is None else len(task.split("attribute"))
    fitting: list[int] = []
    for start in range(0, end, block):
        pool = run.prompts(arm.task, "attribute", spec.shots, arm.seed,
                           range(start, min(start + block, end)))
        unit = run.unit(PoolJob(pool, run.written(arm.task)[1], run.info.layers - 1, (BASELINE,),
                                run.spec.dtype))
        yield [unit]
        answers = run.store.read("predictions", [unit.id]).sort_by("example").to_pylist()
        fitting += [row["example"] for row in answers
                    if row["correct"] == (spec.choose == "correct")]
        if len(fitting) >= spec.prompts:
            return run.prompts(arm.task, "attribute", spec.shots, arm.seed,
                               fitting[: spec.prompts])
    raise UserError(
        f"attribution '{spec.label}': of {end} prompts of '{arm.task}' the model answers "
        f"{len(fitting)} {spec.choose}ly, fewer than prompts: {spec.prompts}")


def _integrated(run: ModelRun, arm: Arm, sample: Prompts
                ) -> Step[dict[int, NDArray[np.float64]]]:
    """Raise the nodes of every layer until the error of its mean scores is small enough."""
    spec = arm.spec
    groups = [run.layers] if spec.path == "joint" else [(layer,) for layer in run.layers]
    # Layers scaled together → layer → blocks of prompts → levels.
    parts: dict[tuple[int, ...], dict[int, list[list[NodeGradients]]]] = {g: {} for g in groups}
    scores: dict[int, NDArray[np.float64]] = {}
    for level, nodes in enumerate(quadrature.NODES):
        units = {group: _attribute_units(run, arm, sample, group, level) for group in parts}
        yield [unit for of_group in units.values() for unit in of_group]
        for group in list(parts):
            found = _gradients(run, units[group], group)
            for layer in group:
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
                    _record_scores(run, arm, sample, layer, result.scores, nodes, result)
                _record_gaps(run, arm, nodes, results)
        if not parts:
            break
    return scores


def _attribute_units(run: ModelRun, arm: Arm, sample: Prompts, layers: tuple[int, ...], level: int
                     ) -> list[Unit]:
    spec = arm.spec
    above = run.info.layers - layers[0]
    indices = sample.indices
    return [
        run.unit(
            AttributeJob(
                objective=spec.objective,
                objective_digest=objective_digest(spec.objective),
                path="layer" if spec.path == "single" else spec.path,
                released=spec.variant == "released",
                projection=spec.projection,
                prompts=run.prompts(arm.task, "attribute", spec.shots, arm.seed,
                                    indices[start : start + spec.block]),
                layers=layers,
                level=level,
                dtype=run.spec.dtype,
            ),
            cost=above * len(quadrature.new_nodes(level)),
        )
        for start in range(0, len(indices), spec.block)
    ]


def _gradients(run: ModelRun, units: list[Unit], layers: tuple[int, ...]
               ) -> list[dict[int, NodeGradients]]:
    """Block → layer → what its unit found."""
    table = run.store.read("attribution_parts", [unit.id for unit in units])
    owners, where = np.array(table["unit_id"].to_pylist()), np.array(table["layer"].to_pylist())
    found = []
    for unit in units:
        of_unit = {}
        for layer in layers:
            rows = table.filter((owners == unit.id) & (where == layer))
            of_unit[layer] = NodeGradients(*(np.array(rows[name].to_pylist())
                                             for name in ("alpha", "sums", "totals", "values")))
        found.append(of_unit)
    return found


def _scored(run: ModelRun, arm: Arm, sample: Prompts) -> Step[dict[int, NDArray[np.float64]]]:
    """Scores of another method: one unit for all layers, or one for each where that is long."""
    spec = arm.spec
    single = spec.path == "single"
    long = single or spec.method == "iterated_path"
    groups = [(layer,) for layer in run.layers] if long else [run.layers]
    units = [run.unit(ScoreJob("single" if single else spec.method, spec.objective,
                               objective_digest(spec.objective), spec.projection, sample, group,
                               run.spec.dtype), cost=run.info.layers - group[0])
             for group in groups]
    yield units
    scores: dict[int, NDArray[np.float64]] = {}
    for row in run.store.read("attribution_parts", [unit.id for unit in units]).to_pylist():
        scores[row["layer"]] = np.array(row["sums"]) / len(sample.indices)
    for layer, of_layer in sorted(scores.items()):
        _record_scores(run, arm, sample, layer, of_layer)
    return scores


def _shuffled(run: ModelRun, arm: Arm, sample: Prompts) -> dict[int, NDArray[np.float64]]:
    """Scores that know nothing: minus the place in a random order. Nothing is run for them.

    The orders are others than those of the controls of the same seed, which would be equal to what
    they control.
    """
    width = run.info.components(_site(run, arm))
    scores: dict[int, NDArray[np.float64]] = {}
    for layer in run.layers:
        order = random_order(width, layer, arm.seed, "random attribution")
        scores[layer] = -1 - np.argsort(order).astype(np.float64)
        _record_scores(run, arm, sample, layer, scores[layer])
    return scores


def _about(run: ModelRun, arm: Arm, layer: int, nodes: int | None) -> dict[str, Any]:
    differentiates = arm.spec.method in GRADIENT_METHODS
    return {"model": run.info.id, "method": arm.spec.label, "layer": layer, "nodes": nodes,
            "objective": arm.spec.objective.label if differentiates else None,
            "proxy": arm.task, "seed": arm.seed}


def _record_scores(
    run: ModelRun, arm: Arm, sample: Prompts, layer: int, scores: NDArray[np.float64],
    nodes: int | None = None, found: LayerScores | None = None,
) -> None:
    setting = {
        "shots": sample.shots, "format": sample.format, "site": _site(run, arm),
        "prompts": len(sample.indices),
        "error_estimate": None if found is None else found.error,
        "completeness_error": None if found is None else float(np.median(np.abs(found.gaps))),
    }
    run.record("attributions", [
        _about(run, arm, layer, nodes) | setting
        | {"index": unit, "score": float(scores[unit]), "rank": place}
        for place, unit in enumerate(in_order(scores, arm.spec.rank), 1)
    ], "scores")


def _record_gaps(run: ModelRun, arm: Arm, nodes: int, found: dict[int, LayerScores]) -> None:
    """Completeness gaps. Layers scaled together explain one change together, so have one gap."""
    if arm.spec.variant == "released":  # its scores are not meant to add up to anything
        return
    first = min(found)
    totals = np.sum([result.totals for result in found.values()], axis=0)
    run.record("completeness_gaps", [
        _about(run, arm, first, nodes)
        | {"example": i, "total": float(total), "delta": float(delta), "gap": float(total - delta)}
        for i, (total, delta) in enumerate(zip(totals, found[first].deltas, strict=True))
    ], "gaps")
