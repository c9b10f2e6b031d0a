"""A run of a results folder, with every view that a report asks computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunelib.errors import UserError, unknown_name
from prunelib.results.report.sections import SECTIONS
from prunelib.results.views.registry import VIEWS

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
    """Put temporary tables of one run in front of the views, so that nothing is computed twice.

    A view of DuckDB finds the temporary table too where another view, its building block, has the
    same name. Building blocks hold every answer several times and are not kept.
    """
    asked = {question.view for section in SECTIONS for question in section.questions}
    blocks = [view.name for view in VIEWS if view.name.startswith("_") and "run" in view.columns]
    for name in (*blocks, *(view.name for view in VIEWS if view.name in asked)):
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {name} AS FROM memory.main.{name} WHERE run = $1", [run])
    for name in blocks:
        connection.execute(f"DROP TABLE temp.{name}")
