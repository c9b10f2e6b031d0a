"""What no section of a recipe can see alone: its parts together, and its tasks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from functools import partial

from prunelib.errors import UserError, unknown_name
from prunelib.recipe.arms import RankingRequest
from prunelib.recipe.attribution import EACH_TASK, AttributionSpec
from prunelib.recipe.evaluate import CapabilitySpec
from prunelib.recipe.lm_eval import LmEvalSpec
from prunelib.recipe.problems import Findings, Keys
from prunelib.recipe.recipe import SEVERAL, Recipe
from prunelib.recipe.studies import STUDIES
from prunelib.tasks import CHAT, FORMATS, Split, Task, text_file
from prunelib.tasks.lm_eval_tasks import facts
from prunelib.tasks.right_answers import try_scorer

#: Keys to what is looked at, the sections that it concerns, and the look.
_Check = tuple[Keys, set[str], Callable[[], None]]


def check_recipe(recipe: Recipe, unread: Collection[str] = ()) -> None:
    """Raise :class:`UserError` for all that no section can see alone.

    ``unread``: sections that have mistakes of their own. What concerns them is not checked.
    """
    findings = Findings()
    for group in (_form(recipe), _parts(recipe), _answers(recipe)):
        for path, concerns, check in group:
            if not concerns & set(unread):
                with findings.at(*path):
                    check()
        findings.end()  # else the next group would say what follows from it


def _form(recipe: Recipe) -> Iterator[_Check]:
    yield ("attribution",), {"attribution", *STUDIES}, partial(_check_names, recipe)
    yield ("tasks",), {"tasks"}, partial(_check_datasets, recipe)
    for i, spec in enumerate(recipe.tasks):
        if spec.correct is not None:
            yield ("tasks", i), {"tasks"}, partial(_check_scorer, recipe, spec.name)
    yield ("evaluate",), {"attribution", "search", "evaluate"}, partial(_check_each_task, recipe)


def _parts(recipe: Recipe) -> Iterator[_Check]:
    tasks, capability = {"tasks", "format"}, recipe.evaluate.capability
    for request in recipe.ranking_requests():
        path = ("attribution", recipe.attribution.index(request.spec))
        yield path, {"attribution", "search", "controls", "evaluate", *tasks}, partial(
            _check_request, recipe, request)
    for i, name in enumerate(recipe.evaluate.tasks):
        yield ("evaluate", "tasks", i), {"evaluate", *tasks}, partial(_check_task, recipe, name)
    yield ("evaluate",), {"evaluate", "format", "system"}, partial(_check_prompts, recipe)
    if capability:
        yield ("evaluate", "capability"), {"evaluate", *tasks}, partial(
            _check_capability, recipe, capability)
    if harness := recipe.evaluate.lm_eval:
        yield ("evaluate", "lm_eval"), {"evaluate"}, partial(_check_lm_eval, harness)
    for study in recipe.studies():
        yield (study.section,), {study.section, "evaluate", *tasks}, partial(study.check, recipe)


def _answers(recipe: Recipe) -> Iterator[_Check]:
    concerns = {"attribution", "search", "evaluate", "tasks", "format"}
    yield ("format",), concerns, partial(_check_answers, recipe)


def _check_names(recipe: Recipe) -> None:
    labels = Counter(spec.label for spec in recipe.attribution)
    if twice := [label for label, count in labels.items() if count > 1]:
        raise UserError(f"attribution: two are called '{twice[0]}': give each a name")
    labels.update(spec.name for spec in recipe.interventions)
    if twice := [label for label, count in labels.items() if count > 1]:
        raise UserError(f"interventions: '{twice[0]}' is the name of two, or of an attribution: "
                        "give each a name of its own")


def _check_datasets(recipe: Recipe) -> None:
    names = Counter(spec.name for spec in recipe.tasks)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(f"tasks: two are called '{twice[0]}'")
    if taken := sorted(SEVERAL & names.keys()):
        raise UserError(f"tasks: '{taken[0]}' is reserved, as it stands for several tasks: "
                        "give yours another name")


def _check_scorer(recipe: Recipe, name: str) -> None:
    try:
        try_scorer(recipe.task(name))
    except UserError as error:
        raise UserError(f"task '{name}': {error}") from error


def _check_task(recipe: Recipe, name: str) -> None:
    if vectors := recipe.evaluate.task_vectors:
        if recipe.task(name).choices:
            raise UserError(f"evaluate.task_vectors: answers to task '{name}' are chosen, and "
                            "task vectors are seen in what a model writes: leave it out")
        recipe.task(name).check("search", vectors.shots, vectors.examples)
        recipe.task(name).check("report", vectors.shots, vectors.examples)
    _check_reported(recipe, name, max(recipe.evaluate.shots), recipe.examples(name),
                         recipe.evaluate.demonstrations)


def _check_request(recipe: Recipe, request: RankingRequest) -> None:
    _check_labels(recipe, request.spec, recipe.task(request.task))
    recipe.task(request.task).check(
        "attribute", request.spec.shots, request.spec.prompts,
        _unreported(recipe, "attribution", request.task, request.spec.demonstrations))
    split, examples = recipe.search.split, recipe.search.examples
    searched = recipe.task(recipe.search_task(request.task))
    searched.check(split, recipe.search.shots, examples if split == "search" else 0,
                   _unreported(recipe, "search", searched.name, recipe.search.demonstrations))
    if not searched.labelled(split):
        raise UserError(f"search: task '{searched.name}' has no labels in its {split} "
                        "split, by which to choose")
    if split == "attribute" and recipe.search_task(request.task) != request.task:
        raise UserError("search.split: attribute searches on the prompts that were "
                        f"attributed, of '{request.task}', not of '{recipe.search.proxy}'")
    if request.main and recipe.controls.fine_tuning and not recipe.task(request.task).labelled(
            "attribute"):
        raise UserError(f"controls.fine_tuning: task '{request.task}' has no labels in its "
                        "attribute split")


def _check_each_task(recipe: Recipe) -> None:
    if not recipe.evaluate.tasks and any(s.proxy == EACH_TASK for s in recipe.attribution):
        raise UserError("attribution.proxy: each_task stands for the tasks of evaluate.tasks, and "
                        "those of lm-evaluation-harness have no splits to attribute on")
    if recipe.search.proxy == EACH_TASK:
        raise UserError("search.proxy is one task; without it every ablation is searched for "
                        "on the task that was attributed, also with attribution.proxy: "
                        "each_task")
    if EACH_TASK in recipe.evaluate.tasks:
        raise UserError("evaluate.tasks: each_task is a proxy of attribution, and stands for "
                        "the tasks that are named here")
    if recipe.evaluate.transfer and all(s.proxy != EACH_TASK for s in recipe.attribution):
        raise UserError("evaluate.transfer: every ablation is reported on every task anyway, "
                        "unless an attribution has proxy: each_task")


def _unreported(recipe: Recipe, key: str, name: str, demonstrations: str | None
                ) -> tuple[Split, ...]:
    """Where demonstrations come from in a section that must not see what is reported."""
    found = recipe.sources(name, demonstrations)
    if "report" in found:
        raise UserError(f"{key}.demonstrations: {demonstrations} is what is reported of task "
                        f"'{name}', which nothing is to be chosen by")
    return found


def _check_prompts(recipe: Recipe) -> None:
    """Keys about prompts that go together."""
    if recipe.system is not None and CHAT not in (recipe.format, recipe.evaluate.format):
        raise UserError("system is the system prompt of format: chat, and no prompt has that "
                        "format")
    if isinstance(recipe.evaluate.examples, dict):
        for name in recipe.evaluate.examples:
            if name not in recipe.evaluate.tasks:
                raise unknown_name("task in evaluate.examples", name, recipe.evaluate.tasks)


def _check_reported(recipe: Recipe, name: str, shots: int, examples: int,
                    demonstrations: str | None = None) -> None:
    task = recipe.task(name)
    task.check("report", shots, examples, recipe.sources(name, demonstrations))
    if not task.labelled("report"):
        raise UserError(f"evaluate: task '{name}' has no labels in its report split, by which "
                        "to count right answers")


def _check_capability(recipe: Recipe, spec: CapabilitySpec) -> None:
    for name in spec.tasks:
        _check_reported(recipe, name, spec.shots, spec.examples)
        if not recipe.task(name).options and not recipe.task(name).choices:
            raise UserError(f"capability: task '{name}' has no options to choose among")
        if (have := len(recipe.task(name).split("report"))) < spec.examples:
            raise UserError(f"capability: task '{name}' has {have} questions, fewer than "
                            f"examples: {spec.examples}")
    if spec.text == "prompts":
        if not recipe.evaluate.tasks:
            raise UserError("capability.text: prompts are those of evaluate.tasks, which has none")
        for name in recipe.evaluate.tasks:
            recipe.task(name).check("report", max(recipe.evaluate.shots), spec.examples)
    elif spec.text != "prose":
        if not os.path.exists(spec.text):  # noqa: PTH110 - whatever the name, no error
            raise unknown_name("text", spec.text, ["prose", "prompts", "a file's path"])
        text_file(spec.text)


def _check_lm_eval(spec: LmEvalSpec) -> None:
    for task in spec.leaves:
        facts(task, spec.folders, spec.shots, spec.limit)


def _check_answers(recipe: Recipe) -> None:
    """Whether every answer can be told from what comes after it."""
    asked = {(name, recipe.format) for request in recipe.ranking_requests()
             for name in (request.task, recipe.search_task(request.task))}
    asked |= {(name, recipe.format_on("report")) for name in recipe.evaluate.tasks}
    if recipe.evaluate.capability:
        asked |= {(name, recipe.format_on("report")) for name in recipe.evaluate.capability.tasks}
    for name, written in sorted(asked):
        if written == CHAT:  # an answer is one line, as everywhere
            continue
        task, separator = recipe.task(name), FORMATS[written].separator
        cut = [y for _, y in task.pairs if separator in y] if task.format is None else []
        if cut:
            raise UserError(f"format {written}: task '{name}' has answers such as '{cut[0]}', "
                            f"which {separator!r} would end: use another format or task")


def _check_labels(recipe: Recipe, spec: AttributionSpec, task: Task) -> None:
    objective = spec.objective
    evaluates = spec.computation.needs_objective
    needs = spec.choose != "random" or (evaluates and objective.needs_labels)
    if needs and not task.labelled("attribute"):
        raise UserError(
            f"attribution '{spec.label}': task '{task.name}' has no labels in its attribute "
            "split; objective max_logit and choose: random need none")
    if evaluates and objective.compares_answers and spec.shots == 0:
        raise UserError(f"attribution '{spec.label}': {objective.name} compares answers of "
                        "demonstrations, and shots is 0: use gold_only or max_logit")
