"""A run of a results folder, with every view that a report asks computed once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prunelib.errors import UserError, unknown_name
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


@contextmanager
def blocks_computed(connection: duckdb.DuckDBPyConnection, run: str) -> Iterator[None]:
    """Keep the building blocks of views, of one run, for as long as views are computed.

    A view of DuckDB finds a temporary table too where another view, its building block, has the
    same name. They hold every answer several times.
    """
    blocks = [view.name for view in VIEWS if view.name.startswith("_") and "run" in view.columns]
    compute_views(connection, run, blocks)
    yield
    for name in blocks:
        connection.execute(f"DROP TABLE temp.{name}")


def compute_views(connection: duckdb.DuckDBPyConnection, run: str, names: Iterable[str]) -> None:
    """Put temporary tables of one run in front of views, so that nothing is computed twice."""
    for name in names:
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {name} AS FROM memory.main.{name} WHERE run = $1", [run])
