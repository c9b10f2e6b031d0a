"""A report's page, read by another parser."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any, NamedTuple

import lxml.html
import pytest

from prunelib.results.query import open_results, query
from prunelib.results.report.html import Report, build
from prunelib.results.report.run import find_run


class Table(NamedTuple):
    """A table: its columns, its cells as elements, the SQL beside it."""

    columns: list[str]
    rows: list[list[Any]]
    sql: str


def report(place: Path, **options: Any) -> Report:
    connection = open_results(place)
    return build(connection, find_run(connection, place, None), "figures", **options)


def page(html: str) -> Any:
    return lxml.html.document_fromstring(html)


def tables(document: Any) -> list[Table]:
    found = []
    for element in document.xpath("//table[@data-sql]"):
        (sql,) = document.xpath("//pre[@id=$id]", id=element.get("data-sql"))
        found.append(Table([cell.text_content() for cell in element.xpath("./thead/tr/th")],
                           [list(row) for row in element.xpath("./tbody/tr")],
                           sql.text_content()))
    return found


def near(value: float) -> Any:
    """Up to the order in which floating-point numbers are added."""
    return pytest.approx(value, rel=1e-12, abs=1e-12)


def check_table(place: Path, table: Table, most: int) -> None:
    """Every cell is what its SQL gives when a user asks it."""
    expected = query(place, table.sql).to_pylist()
    assert len(table.rows) == min(len(expected), most)
    for cells, row in zip(table.rows, expected, strict=False):
        for name, cell in zip(table.columns, cells, strict=True):
            value = row[name]
            if isinstance(value, int | float) and not isinstance(value, bool):
                assert float(cell.get("data-sort")) == near(value), (name, table.sql)
                shown = float(cell.text_content().partition(" (")[0])
                assert abs(shown - value) <= 5.01e-4 * abs(value) + 1e-12
            else:
                assert cell.text_content() == ("" if value is None else str(value))
            for end in ("low", "high"):
                if row.get(f"{name}_{end}") is not None:
                    assert float(cell.get(f"data-{end}")) == near(row[f"{name}_{end}"])
    left_out = set(expected[0]) - set(table.columns)
    for name in left_out:  # ends of intervals, and columns without a value
        assert name.endswith(("_low", "_high")) or all(row[name] is None for row in expected)


def embedded(document: Any) -> list[dict[str, Any]]:
    (packed,) = document.xpath("//script[@id='packed']")
    return json.loads(gzip.decompress(base64.b64decode(packed.text)))
