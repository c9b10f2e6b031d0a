"""What of the user's own a recipe names, besides models: functions, and local files."""

from __future__ import annotations

from collections.abc import Iterator

from prunelib.recipe.recipe import Recipe
from prunelib.recipe.steering import OWN_STEERING, SteeringSpec
from prunelib.tasks import PairsSpec
from prunelib.tasks.dataset_files import is_local
from prunelib.tasks.right_answers import ANSWER_SCORER

#: Key of results of another run, which are no file that is read once.
RESULTS = "interventions.results"


def own_functions(recipe: Recipe) -> list[tuple[str, str]]:
    """What messages call each function of the user's, and its name, in a fixed order."""
    found = {("objective", spec.objective.name) for spec in recipe.attribution
             if spec.objective.own}
    found |= {("scorer", spec.method) for spec in recipe.attribution if spec.own}
    found |= {(ANSWER_SCORER, spec.correct) for spec in recipe.tasks if spec.correct is not None}
    found |= {(OWN_STEERING, method.method) for section in (recipe.model_extra or {}).values()
              if isinstance(section, SteeringSpec) for method in section.methods if method.own}
    return sorted(found)


def own_files(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """The key of each local file or folder that is read, and its path as the recipe has it."""
    for task in recipe.tasks:
        if isinstance(task, PairsSpec):
            yield "tasks", task.pairs
        elif is_local(task.path):
            yield "tasks", task.path
    for spec in recipe.interventions:
        if path := spec.vector.file if spec.vector else spec.file:
            yield "interventions", path
        if spec.results is not None and "://" not in spec.results:
            yield RESULTS, spec.results
    capability = recipe.evaluate.capability
    if capability and capability.text not in ("prose", "prompts"):
        yield "evaluate.capability.text", capability.text
    if lm_eval := recipe.evaluate.lm_eval:
        for folder in lm_eval.folders:
            yield "evaluate.lm_eval.folders", folder
