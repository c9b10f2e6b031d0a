"""``prunelib validate``: check a recipe before any work."""

from __future__ import annotations

from jobs.commands.options import RecipeFile
from jobs.console import console


def validate(recipe: RecipeFile) -> None:
    """Check a recipe, its models and its tasks before any work.

    All mistakes are listed, each with its line and column.

    Example: `prunelib validate jobs/recipes/demo.yaml`
    """
    from prunelib.pipeline.driver import checked, model_notes
    from prunelib.pipeline.stages.lm_eval import lm_eval_count

    loaded, infos = checked(recipe)
    for note in loaded.notes() + [note for info in infos for note in model_notes(loaded, info)]:
        console.print(note, markup=False)
    tasks = len(loaded.evaluate.tasks) + lm_eval_count(loaded)
    console.print(f"{recipe}: fine. Run {loaded.run_id}, {len(infos)} models, {tasks} tasks.")
