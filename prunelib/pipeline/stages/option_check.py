"""Whether the options of a task can be told apart by a model's tokenizer, before any work."""

from __future__ import annotations

from prunelib.engines.multiple_choice import check_distinct
from prunelib.errors import UnitError, UserError
from prunelib.models import ModelInfo
from prunelib.models.loading import checking_tokenizer
from prunelib.pipeline.units.prompts import written
from prunelib.recipe.recipe import Recipe
from prunelib.tasks import Task, draw
from prunelib.tasks.tokenization import answer_tokens


def check_options(recipe: Recipe, info: ModelInfo) -> None:
    """Raise ``UserError`` if an option of an evaluated task begins another one."""
    for name in recipe.evaluate.tasks:
        try:
            task = recipe.task(name)
        except UserError:  # it is not on this machine
            continue
        if task.options and (task.scoring or recipe.evaluate.scoring) == "options":
            _check(recipe, info, task)


def _check(recipe: Recipe, info: ModelInfo, task: Task) -> None:
    (example,) = draw(task, split="report", shots=min(recipe.evaluate.shots), seed=0, count=1,
                      prompt_format=written(recipe, info, "report"),
                      demonstrations=recipe.sources(task.name, recipe.evaluate.demonstrations))
    try:
        check_distinct(answer_tokens(example, task.options, checking_tokenizer(info))[1],
                       task.options)
    except UnitError:  # such examples are rows with errors
        pass
    except UserError as error:
        raise UserError(f"task '{task.name}': model '{info.id}': {error}") from error
