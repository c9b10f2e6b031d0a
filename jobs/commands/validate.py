"""``prunelib validate``: check a recipe before any work."""

from __future__ import annotations

from jobs.commands.options import RecipeFile
from jobs.console import console


def validate(recipe: RecipeFile) -> None:
    """Check a recipe, its models and its tasks before any work.

    Example: `prunelib validate jobs/recipes/demo.yaml`
    """
    from prunelib.pipeline.driver import prepare
    from prunelib.recipe.load import load_recipe

    loaded = load_recipe(recipe)
    infos = prepare(loaded)
    console.print(f"{recipe}: fine. Run {loaded.run_id}, {len(infos)} models, "
                  f"{len(loaded.evaluate.tasks)} tasks.")
