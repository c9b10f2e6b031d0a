"""A question's answer as cells: what a page shows, and the exact values behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunelib.results.report.sections import MOST_ROWS, Question
from prunelib.results.schemas import TABLES, description
from prunelib.results.views.registry import VIEWS

if TYPE_CHECKING:
    import duckdb

_MEANINGS = {view.name: view.columns for view in VIEWS} | {
    name: {field.name: description(field) for field in schema} for name, schema in TABLES.items()}


@dataclass(frozen=True)
class Column:
    """A column as it is shown: its name, its meaning, whether numbers stand in it."""

    name: str
    meaning: str
    number: bool


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: what is read.
        exact: the value behind it, by which a column is sorted; ``None`` where that is the text.
        low, high: ends of its interval, exactly; ``None`` if it has none.
    """

    text: str
    exact: str | None = None
    low: str | None = None
    high: str | None = None


@dataclass(frozen=True)
class Answer:
    """A table as it is shown.

    Attributes:
        rows: at most :data:`MOST_ROWS` of ``total``.
        sql: the question, as ``prunelib query`` takes it.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: int
    sql: str


def answered(connection: duckdb.DuckDBPyConnection, question: Question, run: str) -> Answer | None:
    """The table of a question, ``None`` if it has no rows. Columns without a value are left out."""
    sql = question.sql(run)
    found = connection.sql(sql).to_arrow_table()
    if not found.num_rows:
        return None
    rows = found.slice(0, MOST_ROWS).to_pylist()
    empty = {name for name in found.column_names if found[name].null_count == found.num_rows}
    ends = {f"{name}_{end}" for name in found.column_names for end in ("low", "high")}
    names = [name for name in found.column_names if name not in ends | empty]
    meanings = _MEANINGS[question.view]
    columns = tuple(Column(
        name, meanings[name] + (f"; with its interval ({name}_low to {name}_high)"
                                if f"{name}_low" in found.column_names else ""),
        isinstance(next(v for v in found[name].to_pylist() if v is not None), int | float))
        for name in names)
    cells = tuple(tuple(_cell(row, name) for name in names) for row in rows)
    return Answer(question.title, columns, cells, found.num_rows, sql)


def _cell(row: dict[str, Any], name: str) -> Cell:
    value, low, high = row[name], row.get(f"{name}_low"), row.get(f"{name}_high")
    text = shown(value)
    if low is not None:
        text += f" ({shown(low)} to {shown(high)})"
    return Cell(text, *(repr(v) if isinstance(v, int | float) else None
                        for v in (value, low, high)))


def shown(value: Any) -> str:
    """A value as it is read: four digits of a number that is no count."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
