"""A run of a results folder, with every view that a report asks computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunelib.errors import UserError, unknown_name
from prunelib.results.report.sections import SECTIONS

if TYPE_CHECKING:
    import duckdb


def find_run(connection: duckdb.DuckDBPyConnection, place: object, run: str | None
             ) -> dict[str, Any]:
    """The row of a run in table ``runs``, that of the latest unless one is named.

    Raises :class:`UserError` if there is none.
    """
    rows: list[dict[str, Any]] = connection.sql(
        "SELECT * FROM runs ORDER BY started DESC, run").to_arrow_table().to_pylist()
    if not rows:
        raise UserError(f"{place} has no runs")
    found = next((row for row in rows if run in (None, row["run"])), None)
    if found is None:
        raise unknown_name("run", str(run), [row["run"] for row in rows])
    return found


def compute_views(connection: duckdb.DuckDBPyConnection, run: str) -> None:
    """Put temporary tables of one run in front of the views, so that nothing is computed twice."""
    for view in dict.fromkeys(q.view for section in SECTIONS for q in section.questions):
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {view} AS FROM memory.main.{view} WHERE run = $1", [run])
