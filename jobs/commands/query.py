"""``prunelib query``: SQL over the results."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from jobs.commands.options import Results
from jobs.console import console

# The latest run, without the column that says which.
_FIRST = """SELECT * EXCLUDE run FROM overview
WHERE run = (SELECT run FROM runs ORDER BY started DESC, run LIMIT 1)"""


class Format(StrEnum):
    """How ``prunelib query`` prints its answer."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def query(
    results: Results,
    sql: Annotated[str, typer.Argument(
        help="SQL (DuckDB), or - to read it from stdin. Without it, the view `overview` of the "
             "latest run.", metavar="SQL", show_default=False)] = _FIRST,
    output: Annotated[Format, typer.Option("--format", "-f", help="How to print.")] = Format.table,
    timeout: Annotated[float, typer.Option(
        min=0, help="Seconds after which the question is given up; 0 for never.",
        metavar="SECONDS")] = 0,
) -> None:
    """Answer a question about the results in SQL.

    Reads nothing but the results and writes nothing. Ctrl-C stops it. On a terminal that is too
    narrow for a table, each row becomes a record; elsewhere nothing is cut.

    Examples:
    - `prunelib query --results results/demo`
    - `prunelib query "select * from leaderboard" --results results/demo`
    - `prunelib query - --results results/demo --format csv < question.sql`
    """
    from jobs.answer import print_csv, print_json, print_parquet, print_table
    from prunelib.results.query import query as ask

    # Whatever the locale says, what was typed is UTF-8.
    typed = sys.stdin.buffer.read() if sql == "-" else os.fsencode(sql)
    answer = ask(results, typed.decode("utf-8", "replace"), timeout)
    if output is Format.table:
        print_table(answer, console)
    else:
        {Format.csv: print_csv, Format.json: print_json, Format.parquet: print_parquet}[output](
            answer)
