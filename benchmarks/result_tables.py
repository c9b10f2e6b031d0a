"""The tables of ``docs/results``: each is the answer to the query above it.

    python -m benchmarks.result_tables docs/results/heads.md --results results/heads

A table stands between ``<!-- table: RECIPE -->`` and ``<!-- table: end -->``, after its query.
Those whose recipe (its ``name``) has a finished run in the folder are written again.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import duckdb

from prunelib.errors import UserError
from prunelib.results.query import open_results

#: Recipe, query, and the table that answers it.
TABLE = re.compile(r"<!-- table: (?P<recipe>[\w-]+) -->\n```sql\n(?P<sql>.*?)```\n+(?P<rows>.*?)"
                   r"<!-- table: end -->", re.DOTALL)


def rows_of(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The answer to a query as a table in Markdown."""
    answer = connection.sql(sql)
    lines = [answer.columns, ["---"] * len(answer.columns), *answer.fetchall()]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def write(page: Path, results: Path) -> int:
    """Write the tables of a page that the results answer; how many these are."""
    connection, written = open_results(results), 0
    finished = {name for (name,) in connection.sql(
        "SELECT json_extract_string(resolved, '$.name') FROM runs WHERE status = 'done'"
    ).fetchall()}

    def again(found: re.Match[str]) -> str:
        nonlocal written
        if found["recipe"] not in finished:
            return found[0]
        written += 1
        start, stop = (place - found.start() for place in found.span("rows"))
        return f"{found[0][:start]}{rows_of(connection, found['sql'])}\n{found[0][stop:]}"

    page.write_text(TABLE.sub(again, page.read_text()))
    return written


def main() -> None:
    """Write the tables of one page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    if not (written := write(options.page, options.results)):
        raise UserError(f"no table of {options.page} is of a recipe that {options.results} has "
                        "finished")
    print(f"{options.page}: {written} tables")


if __name__ == "__main__":
    main()
