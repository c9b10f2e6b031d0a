"""``prunelib query``: SQL over the results."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table

from jobs.commands.options import Results
from jobs.console import console


class Format(StrEnum):
    """How ``prunelib query`` prints its answer."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def query(
    sql: Annotated[str, typer.Argument(
        help="SQL (DuckDB), or - to read it from stdin.", metavar="SQL")],
    results: Results,
    output: Annotated[Format, typer.Option("--format", "-f", help="How to print.")] = Format.table,
) -> None:
    """Answer a question about the results in SQL.

    Reads nothing but the results and writes nothing.

    Examples:
    - `prunelib query "select * from leaderboard" --results results/demo`
    - `prunelib query - --results results/demo --format csv < question.sql`
    """
    from prunelib.results.query import query as ask

    _print(ask(results, sys.stdin.read() if sql == "-" else sql), output)


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
