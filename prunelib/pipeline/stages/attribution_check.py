"""Whether a model's neurons can be scored and pruned as a recipe asks, before any work."""

from __future__ import annotations

from prunelib.attribution.custom_objectives import needs_labels, try_objective
from prunelib.attribution.objectives.base import make_objective, objective_digest
from prunelib.engines.limits import model_limits
from prunelib.errors import UnitError, UserError
from prunelib.models import ModelInfo, describe, load, reference_models
from prunelib.models.loading import checking_tokenizer
from prunelib.own_functions import import_function
from prunelib.pipeline.stages.rankings import pruned_site
from prunelib.pipeline.units.prompts import written
from prunelib.recipe.arms import RankingRequest
from prunelib.recipe.attribution import AttributionSpec
from prunelib.recipe.recipe import Recipe
from prunelib.tasks import Split, draw, get_task
from prunelib.tasks.tokenization import encode

#: Prompts in which answers' first tokens are compared before anything starts.
_LOOK = 20
#: Task whose prompts a user's own scorer is tried on.
_TRIED = "vowel_counting"


def check_attribution(recipe: Recipe, info: ModelInfo) -> None:
    """Raise :class:`UserError` if neurons cannot be scored or pruned as a recipe asks."""
    for spec in recipe.attribution:
        pruned_site(info, spec, recipe.search)
        objective_digest(spec.objective)
    for request in recipe.ranking_requests():
        spec, search = request.spec, recipe.search
        needs_objective = spec.computation.needs_objective
        if (needs_objective and spec.objective.compares_answers
                and spec.objective.tokens == "first"):
            _check_first_tokens(recipe, info, f"attribution '{spec.label}'", request.task,
                                "attribute", spec.shots, spec.demonstrations,
                                spec.objective.name,
                                f"objective: {{name: {spec.objective.name}, tokens: all}}")
        if needs_objective and spec.objective.own:
            _check_own(recipe, request, info)
        if spec.own:
            _check_scorer(spec, info)
        if search.statistic == "margin":
            _check_first_tokens(recipe, info, "search", recipe.search_task(request.task),
                                search.split, search.shots, search.demonstrations, "margin",
                                "statistic: accuracy")


def _check_own(recipe: Recipe, request: RankingRequest, info: ModelInfo) -> None:
    """Whether a user's own objective gives a value to each of two prompts of the task."""
    spec, task, tokenizer = request.spec, recipe.task(request.task), checking_tokenizer(info)
    if needs_labels(spec.objective.name) and not task.labelled("attribute"):
        raise UserError(
            f"attribution '{spec.label}': task '{task.name}' has no labels in its attribute split; "
            f"if objective '{spec.objective.name}' reads none, give it the attribute "
            "needs_labels = False")
    drawn = draw(task, split="attribute", shots=spec.shots, seed=request.seed,
                 count=min(spec.prompts, 2), prompt_format=written(recipe, info, "attribute"),
                 demonstrations=recipe.sources(task.name, spec.demonstrations))
    try:
        prompts = [encode(example, tokenizer) for example in drawn]
        try_objective(spec.objective.name, (prompts * 2)[:2], model_limits(info)[1])
    except (UnitError, UserError) as error:
        raise UserError(f"attribution '{spec.label}': model '{info.id}', task '{task.name}': "
                        f"{error}") from error


def _check_scorer(spec: AttributionSpec, info: ModelInfo) -> None:
    """Whether a user's own scorer scores a shipped model, of the same family if there is one."""
    from prunelib.attribution.own_scorers import try_scorer

    import_function("scorer", spec.method)  # before torch is
    family = f"reference/{info.model_type}"
    loaded = load(describe(family if family in reference_models() else "reference/llama"))
    prompts = [encode(example, loaded.tokenizer) for example in draw(
        get_task(_TRIED), split="attribute", shots=2, seed=0, count=2)]
    try:
        try_scorer(spec.method, loaded, prompts, make_objective(spec.objective))
    except UserError as error:
        raise UserError(f"attribution '{spec.label}': {error}") from error


def _check_first_tokens(recipe: Recipe, info: ModelInfo, where: str, name: str, split: Split,
                        shots: int, demonstrations: str | None, what: str, instead: str) -> None:
    """Whether answers have tokens of their own, and some that differ begin differently."""
    task, tokenizer = recipe.task(name), checking_tokenizer(info)
    count = _LOOK if task.sizes is None else min(_LOOK, len(task.split(split)))
    drawn = draw(task, split=split, shots=shots, seed=0, count=count,
                 prompt_format=written(recipe, info, split),
                 demonstrations=recipe.sources(name, demonstrations))
    shifts, errors = [], []
    for example in drawn:
        try:
            encoded = encode(example, tokenizer)
        except UnitError as error:  # such examples are left out
            errors.append(str(error))
            continue
        if set(example.answers) - {example.gold}:
            shifts.append(bool(encoded.first_copies))
    if len(errors) == len(drawn):
        raise UserError(f"{where}: model '{info.id}', task '{name}': {errors[0]}")
    if shifts and not any(shifts):
        raise UserError(
            f"{where}: to model '{info.id}' all answers of '{name}' begin with the same token, as "
            f"its prompts are written, so {what} compares nothing: use {instead}, or another "
            "format")
