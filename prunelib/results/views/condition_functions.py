"""The measures of :mod:`prunelib.scoring.conditions` as functions of SQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
from duckdb.func import FunctionNullHandling, PythonUDFType

from prunelib.scoring.conditions import answers_table, change_p, spread

_ANSWERS = ["VARCHAR[]", "BIGINT[]", "INTEGER[]", "INTEGER[]"]


def add_condition_functions(con: duckdb.DuckDBPyConnection) -> None:
    """Define ``condition_spread`` and ``condition_change`` on ``con``.

    ``condition_spread(measure, queries, series, conditions, correct)`` → [value, floor, p-value,
    low, high], of lists with one item for each answer; ``condition_change(measure, queries,
    series, conditions, before, after)`` → p-value. No answers give null.
    """
    con.create_function("condition_spread", _spreads, ["VARCHAR", *_ANSWERS], "DOUBLE[]",
                        type=PythonUDFType.ARROW, null_handling=FunctionNullHandling.SPECIAL)
    con.create_function("condition_change", _changes, ["VARCHAR", *_ANSWERS, "INTEGER[]"],
                        "DOUBLE", type=PythonUDFType.ARROW,
                        null_handling=FunctionNullHandling.SPECIAL)


# DuckDB counts the parameters of a function.
def _spreads(measure: Any, queries: Any, series: Any, conditions: Any, correct: Any) -> Any:
    found: list[list[float] | None] = []
    for kind, *answers in _rows(measure, queries, series, conditions, correct):
        if answers[0]:
            known = spread(kind, *answers_table(*answers))
            found.append([known.value, known.floor, known.p, known.low, known.high])
        else:
            found.append(None)
    return pa.array(found, pa.list_(pa.float64()))


def _changes(measure: Any, queries: Any, series: Any, conditions: Any, before: Any, after: Any
             ) -> Any:
    found: list[float | None] = []
    for kind, asked_of, of_series, under, old, new in _rows(
            measure, queries, series, conditions, before, after):
        if old and new:
            first, asked = answers_table(asked_of, of_series, under, old)
            second, _ = answers_table(asked_of, of_series, under, new)
            found.append(change_p(kind, first, second, asked))
        else:
            found.append(None)
    return pa.array(found, pa.float64())


def _rows(*columns: Any) -> Iterator[Any]:
    return zip(*(column.to_pylist() for column in columns), strict=True)
