"""``prunelib query``: SQL over the results."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from jobs.commands.options import OptionalManyResults
from jobs.console import console, listing
from prunelib.errors import UserError, unknown_name

# The latest run, without the column that says which.
_FIRST = """SELECT * EXCLUDE run FROM overview
WHERE run = (SELECT run FROM runs ORDER BY started DESC, run LIMIT 1)"""


class Format(StrEnum):
    """How ``prunelib query`` prints its answer."""

    table = "table"
    markdown = "markdown"
    csv = "csv"
    excel = "excel"
    json = "json"
    parquet = "parquet"


def query(
    results: OptionalManyResults = None,
    sql: Annotated[str | None, typer.Argument(
        help="SQL (DuckDB), or - to read it from stdin. Without it, the view `overview` of the "
             "latest run.", metavar="SQL", show_default=False)] = None,
    name: Annotated[str | None, typer.Option(
        help="A saved question in place of SQL.", metavar="QUESTION")] = None,
    saved: Annotated[bool, typer.Option("--list", help="List saved questions.")] = False,
    output: Annotated[Format, typer.Option(
        "--format", "-f", help="How to print; excel is CSV of which Excel takes no text for a "
        "formula, number or date.")] = Format.table,
    timeout: Annotated[float, typer.Option(
        min=0, help="Seconds after which the question is given up; 0 for never.",
        metavar="SECONDS")] = 0,
) -> None:
    """Answer a question about the results in SQL.

    Reads nothing but the results and writes nothing. Ctrl-C stops it. On a terminal that is too
    narrow for a table, each row becomes a record, and what is longer than the screen goes through
    `$PAGER`; elsewhere nothing is cut. Several folders (`--results A --results B`) are asked as
    one.

    Examples:
    - `prunelib query --results results/demo`
    - `prunelib query "select * from leaderboard" --results results/demo`
    - `prunelib query --name copying_by_shot --results results/demo --format markdown`
    - `prunelib query --list`
    - `prunelib query - --results results/demo --format csv < question.sql`
    """
    from jobs import answer
    from prunelib.results.questions import QUESTIONS

    if saved:
        table = listing("question", "what it answers")
        for known, question in QUESTIONS.items():
            table.add_row(known, question.description)
        console.print(table)
        return
    if not results:
        raise UserError("say which results: --results PLACE")
    if name is not None:
        if sql is not None:
            raise UserError("either SQL or --name, not both")
        if name not in QUESTIONS:
            raise unknown_name("question", name, list(QUESTIONS))
        sql = QUESTIONS[name].sql
    # Whatever the locale says, what was typed is UTF-8.
    typed = sys.stdin.buffer.read() if sql == "-" else os.fsencode(_FIRST if sql is None else sql)
    from prunelib.results.query import query as ask

    found = ask(results, typed.decode("utf-8", "replace"), timeout)
    if output is Format.table:
        answer.print_table(found, console)
    else:
        getattr(answer, f"print_{output}")(found)
