"""``prunelib verify``: whether every file of the results is as it was written."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.commands.options import OptionalResults
from jobs.console import console, listing


def verify(
    place: Annotated[str | None, typer.Argument(
        help="Where the results are: a folder or a URL; by default the current folder.",
        metavar="RESULTS", show_default=False)] = None,
    results: OptionalResults = None,
) -> None:
    """Read every file of the results and list those that are damaged.

    The exit code is 1 if there are any. They count nowhere, and a run of the same recipe does their
    units again.

    Example: `prunelib verify results/demo`
    """
    from prunelib.results.storage.verify import verify as check

    place = place or results or "."
    found = check(place)
    if not found.damage:
        console.print(f"{found.files} files, all as they were written")
        return
    table = listing("file", "unit", "what is wrong")
    for damage in found.damage:
        table.add_row(damage.file, damage.unit or "", damage.what)
    console.print(table)
    lines = [f"{len(found.damage)} of {found.files} files are damaged and do not count"]
    lines += [f"lost: {units} units of run {run}" for run, units in found.lost.items()]
    of = f" of run {next(iter(found.lost))}" if found.lost else ""
    lines.append(f"To mend it, run the recipe{of} again: prunelib run RECIPE --results {place}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1)
