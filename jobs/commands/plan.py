"""``prunelib plan``: what a recipe would run, and how long that takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from jobs.commands.options import RecipeFile
from jobs.console import console

if TYPE_CHECKING:
    from prunelib.recipe.recipe import Recipe


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
    gpu_memory: Annotated[
        float | None, typer.Option(
            min=1, help="Only say how many GPUs of this size each model needs.", metavar="GIB")
    ] = None,
) -> None:
    """Show what a recipe would run, and the hours that are left.

    Prints the recipe with every default filled in, and the units of each stage. Needs no GPU and
    no Ray. With `--gpu-memory` it says how many GPUs of one node each model needs, by its
    `config.json` alone: weights need not be here, and nothing else is fetched.

    Examples:
    - `prunelib plan jobs/recipes/demo.yaml --results results/demo`
    - `prunelib plan big.yaml --earlier results/demo --workers 8`
    - `prunelib plan jobs/recipes/demo.yaml --gpu-memory 80`
    """
    from prunelib.pipeline.plan import estimate
    from prunelib.recipe.load import load_recipe

    loaded = load_recipe(recipe)
    if gpu_memory is not None:
        _show_gpus(loaded, gpu_memory)
        return
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


def _show_gpus(recipe: Recipe, each: float) -> None:
    from prunelib.pipeline.plan import gpu_needs
    from prunelib.pipeline.units.memory import PROMPT_TOKENS

    table = Table(title=f"GPUs of {each:g} GiB")
    table.add_column("model", overflow="fold")
    table.add_column("dtype")
    for column in ("weights, GiB", "vLLM", "attribution, GiB", "attribution"):
        table.add_column(column, justify="right")
    for need in gpu_needs(recipe, int(each * 2**30)):
        table.add_row(need.model, need.dtype, f"{need.weights / 2**30:.1f}", str(need.vllm),
                      f"{need.attribution / 2**30:.1f}", str(need.torch))
    console.print(table)
    console.print("GPUs of one node for a worker; attribution: also head scores and the search, "
                  f"for prompts of {PROMPT_TOKENS} tokens (longer ones need more)")
