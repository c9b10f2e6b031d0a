"""``prunelib run``: run a recipe on this machine or on a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.commands.options import RecipeFile, Results
from jobs.console import console


def run(
    recipe: RecipeFile,
    results: Results,
    address: Annotated[
        str | None, typer.Option(
            help="Ray cluster; without it Ray starts on this machine.", metavar="HOST:PORT")
    ] = None,
    inline: Annotated[
        bool, typer.Option("--inline", help="One process, no Ray: for debugging.")
    ] = False,
    deadline: Annotated[
        str | None, typer.Option(
            help="When nothing new begins, instead of the recipe's.", metavar="TIME")
    ] = None,
) -> None:
    """Run a recipe.

    Run it again to resume: finished units are not done again.

    Example: `prunelib run jobs/recipes/demo.yaml --results results/demo`
    """
    from jobs.overnight import run_recipe

    raise typer.Exit(run_recipe(recipe, results, console, address=address, inline=inline,
                                deadline=deadline))
