"""``prunelib plan``: what a recipe would run, and how long that takes."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from jobs.commands.options import RecipeFile
from jobs.console import console


def plan(
    recipe: RecipeFile,
    results: Annotated[
        str | None, typer.Option(
            "--results", "-r", help="What is already done here.", metavar="PLACE")
    ] = None,
    earlier: Annotated[
        list[str] | None, typer.Option(
            help="Other results, to learn times from; repeatable.", metavar="PLACE")
    ] = None,
    workers: Annotated[int, typer.Option(
        min=1, help="Workers that will share the work.", metavar="N")] = 1,
) -> None:
    """Show what a recipe would run, and the hours that are left.

    Prints the recipe with every default filled in, and the units of each stage. Needs no GPU and
    no Ray.

    Examples:
    - `prunelib plan jobs/recipes/demo.yaml --results results/demo`
    - `prunelib plan big.yaml --earlier results/demo --workers 8`
    """
    from prunelib.pipeline.plan import estimate
    from prunelib.recipe.load import load_recipe

    loaded = load_recipe(recipe)
    console.print_json(loaded.model_dump_json())
    table = Table(title=f"run {loaded.run_id}")
    table.add_column("model", overflow="fold")
    table.add_column("stage")
    for column in ("units", "done", "TFLOP", "seconds"):
        table.add_column(column, justify="right")
    lines = estimate(loaded, results, earlier or [])
    shown = None
    for line in lines:
        seconds = "" if line.seconds is None else f"{'~' * line.other}{line.seconds:.0f}"
        table.add_row(line.model if line.model != shown else "", line.stage, line.units_text,
                      str(line.done), f"{line.teraflop:.2f}", seconds)
        shown = line.model
    console.print(table)
    console.print("TFLOP and seconds: what is left, on one worker, by finished runs in these "
                  "results; ~ where only other models were measured; empty where none was")
    known = [line.seconds for line in lines if line.seconds is not None]
    if len(known) == len(lines):
        console.print(f"in all some {sum(known) / 3600 / workers:.2g} hours on {workers} "
                      f"worker{'s' * (workers > 1)}")
