"""``prunelib catalog``: the results as a DuckDB file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.options import ManyResults
from jobs.console import console
from jobs.places import check_new


def catalog(
    out: Annotated[Path, typer.Argument(help="New file.", metavar="OUT.duckdb")],
    results: ManyResults,
) -> None:
    """Copy the results into a DuckDB file, for other programs.

    The `duckdb` command, DBeaver and notebooks open it without prunelib. Each table and view is a
    table there, as of now, with the meaning of each column as its comment.

    Example: `prunelib catalog demo.duckdb --results results/demo`
    """
    from prunelib.results.catalog import write_catalog

    check_new(out, "file")
    console.print(f"{out}: {write_catalog(results, out)} tables")
