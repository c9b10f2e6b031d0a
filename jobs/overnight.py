"""Running a recipe: ``python -m jobs.overnight RECIPE --results FOLDER``, also as a Ray job."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from rich.console import Console

from jobs.progress_display import failures, progress
from jobs.run_summary import run_summary
from prunelib.errors import UserError
from prunelib.pipeline.driver import RunReport, prepare
from prunelib.pipeline.driver import run as run_pipeline
from prunelib.recipe.load import load_recipe
from prunelib.recipe.recipe import Recipe

#: Units from which on a run ends with a compaction of its results.
COMPACT_FROM = 1000


def run_recipe(
    recipe: Path,
    results: str,
    console: Console,
    *,
    address: str | None = None,
    inline: bool = False,
    gpus: int = 0,
) -> int:
    """Run a recipe with progress on ``console``; the exit code (0, or 1 if not all is there).

    ``gpus`` is how many an autoscaling cluster is asked for; it may have none at first.
    """
    loaded = load_recipe(recipe)
    prepare(loaded)  # before Ray is imported, which takes a while
    executor = None
    if not inline:
        from cluster.executor import RayExecutor

        executor = RayExecutor(results, address, gpus=gpus)
    try:
        with progress(console) as reporter:
            report = run_pipeline(loaded, results, executor, reporter)
    finally:
        if executor is not None:
            executor.close()
    if report.units_done >= COMPACT_FROM:
        _compact(report, console)
    _closing(loaded, report, console)
    return 0 if report.complete else 1


def _compact(report: RunReport, console: Console) -> None:
    """Merge the many small files of a large run, so that questions are answered at once."""
    from prunelib.results.storage.compaction import compact
    from prunelib.results.storage.store import Store

    console.print(f"Merging the files of {report.units_done} units")
    try:
        compact(Store.open(report.results))
    except UserError as error:  # everything is there all the same
        console.print(f"not merged: {error}", markup=False, soft_wrap=True)


def _closing(recipe: Recipe, report: RunReport, console: Console) -> None:
    """The last words of a run: what came out, where it is, what to type next."""
    tables, question = run_summary(recipe, report.results, report.run)
    console.print()
    console.print(tables)
    console.print()
    console.print(f"{report.units_done} units done, {report.units_reused} were there already, "
                  f"{len(report.failed)} failed. Results are in {report.results}")
    for what, reasons in (("stopped", report.stopped), ("left out", report.skipped)):
        for model, parts in reasons.items():
            for why in parts:
                console.print(f"{model}: {what}: {why}", markup=False, soft_wrap=True)
    for (model, stage), units in sorted(report.left.items()):
        console.print(f"{model} {stage}: no time for {units} units before the deadline: "
                      "run it again to go on", markup=False, soft_wrap=True)
    if report.failed:
        console.print(failures(report))
        _suggest("select * from failed_units", report, console)
    _suggest(question, report, console)


def _suggest(sql: str, report: RunReport, console: Console) -> None:
    program = "prunelib"
    if shutil.which(program) is None:  # the environment is not active, as after `make demo`
        program = os.path.relpath(Path(sys.executable).with_name(program))
    console.print(f'Next: {program} query "{sql}" --results {report.results}', soft_wrap=True,
                  highlight=False)


def main() -> None:
    """Command line of a Ray job."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--results", required=True)
    parser.add_argument("--address", default=None)
    parser.add_argument("--gpus", type=int, default=0)
    options = parser.parse_args()
    try:
        code = run_recipe(options.recipe, options.results, Console(), address=options.address,
                          gpus=options.gpus)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    sys.exit(code)


if __name__ == "__main__":
    main()
