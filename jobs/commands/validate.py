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

    loaded, infos = checked(recipe)
    for note in loaded.notes() + [note for info in infos for note in model_notes(loaded, info)]:
        console.print(note, markup=False)
    console.print(f"{recipe}: fine. Run {loaded.run_id}, {len(infos)} models, "
                  f"{len(loaded.evaluate.tasks)} tasks.")
