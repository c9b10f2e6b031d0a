"""Running a recipe: ``python -m jobs.overnight RECIPE --results FOLDER``, also as a Ray job."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path

from rich.console import Console

from jobs.console import console, errors, print_error
from jobs.progress_display import failures, progress
from jobs.run_summary import run_summary
from jobs.stopping import stopping
from prunelib.errors import UserError
from prunelib.pipeline.driver import RunReport, usable
from prunelib.pipeline.driver import run as run_pipeline
from prunelib.pipeline.plan import predicted
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
    deadline: str | None = None,
) -> int:
    """Run a recipe with progress on ``console``; the exit code (0, or 1 if not all is there).

    ``gpus`` is how many an autoscaling cluster is asked for; it may have none at first.
    ``deadline`` replaces the recipe's.
    """
    loaded = load_recipe(recipe)
    if deadline is not None:
        loaded = loaded.until(deadline)
    for known in usable(loaded):  # before Ray is imported, which takes a while
        if isinstance(known, UserError):
            console.print(f"left out: {known}", markup=False, soft_wrap=True)
    executor = None
    try:
        if not inline:
            from cluster.executor import RayExecutor

            if address is None:
                console.print("Starting Ray on this machine, some 10 seconds", highlight=False)
            executor = RayExecutor(results, address, gpus=gpus)
        with stopping(), progress(console) as reporter:
            report = run_pipeline(loaded, results, executor, reporter,
                                  partial(_predicted, loaded, results))
    except (KeyboardInterrupt, SystemExit):  # Ray, once it has begun, exits at SIGTERM
        errors.print(f"stopped; what is done is kept. To go on: {_program()} run "
                     f"{shlex.quote(str(recipe))} --results {shlex.quote(results)}", markup=False)
        return 130
    finally:
        if executor is not None:
            with stopping(hard=True):
                executor.close()
    if report.units_done >= COMPACT_FROM:
        _compact(report, console)
    _closing(loaded, report, console)
    return 0 if report.complete else 1


def _predicted(recipe: Recipe, results: str) -> dict[str, dict[str, float]]:
    """What the plan says; nothing where results cannot be read, of which the run itself tells."""
    try:
        return predicted(recipe, results)
    except (UserError, OSError):
        return {}


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


def _program() -> str:
    """How the command line is called here."""
    program = "prunelib"
    if shutil.which(program) is None:  # the environment is not active, as after `make demo`
        program = os.path.relpath(Path(sys.executable).with_name(program))
    return program


def _suggest(sql: str, report: RunReport, console: Console) -> None:
    console.print(f'Next: {_program()} query "{sql}" --results {report.results}', soft_wrap=True,
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
        code = run_recipe(options.recipe, options.results, console, address=options.address,
                          gpus=options.gpus)
    except UserError as error:
        print_error(error)
        code = 2
    sys.exit(code)


if __name__ == "__main__":
    main()
