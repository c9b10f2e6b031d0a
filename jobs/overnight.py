"""Running a recipe: ``python -m jobs.overnight RECIPE --results FOLDER``, also as a Ray job."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from rich.console import Console

from jobs.console import leaderboard, progress
from prunelib.config import load_recipe
from prunelib.errors import UserError
from prunelib.pipeline.driver import RunReport, prepare
from prunelib.pipeline.driver import run as run_pipeline


def run_recipe(
    recipe: Path,
    results: str,
    console: Console,
    *,
    address: str | None = None,
    inline: bool = False,
) -> int:
    """Run a recipe with progress on ``console``; the exit code (0, or 1 if units failed)."""
    from prunelib.results.store import Store

    loaded = load_recipe(recipe)
    prepare(loaded)
    Store.open(results)
    executor = None
    if not inline:
        from cluster.executor import RayExecutor

        executor = RayExecutor(results, address)
    try:
        with progress(console) as reporter:
            report = run_pipeline(loaded, results, executor, reporter)
    finally:
        if executor is not None:
            executor.close()
    _closing(report, console)
    return 1 if report.failed else 0


def _closing(report: RunReport, console: Console) -> None:
    """The last words of a run: what came out, where it is, what to type next."""
    console.print()
    console.print(leaderboard(report.results, report.run))
    console.print()
    console.print(f"{report.units_done} units done, {report.units_reused} were there already, "
                  f"{len(report.failed)} failed. Results are in {report.results}")
    if report.failed:
        _suggest("select * from failed_units", report, console)
    _suggest("select * from chosen", report, console)


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
    options = parser.parse_args()
    try:
        code = run_recipe(options.recipe, options.results, Console(), address=options.address)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    sys.exit(code)


if __name__ == "__main__":
    main()
