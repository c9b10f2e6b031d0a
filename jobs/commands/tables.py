"""``prunelib tables``: what the tables and views hold."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from jobs.console import console


def tables(
    name: Annotated[
        str | None, typer.Argument(help="Only this table or view.", metavar="NAME")
    ] = None,
    results: Annotated[str | None, typer.Option(
        "--results", "-r", help="Also count the rows in this folder.", metavar="PLACE")] = None,
) -> None:
    """List tables and views with their columns and meanings.

    Examples:
    - `prunelib tables`
    - `prunelib tables leaderboard --results results/demo`
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
