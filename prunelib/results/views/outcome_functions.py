"""The sums of :mod:`prunelib.results.views.outcomes` as functions of SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from duckdb.func import FunctionNullHandling, PythonUDFType

from prunelib.results.outcomes import KEY, SUMMARY
from prunelib.results.views.arrow_columns import doubles, lists, longs
from prunelib.results.views.outcomes import Flips, Gaps, Outcomes, PairTally, Tally

_CELL, _CELLS = "BIGINT[]", "BIGINT[][]"
_FLIPS = 'STRUCT("values" DOUBLE[], counts BIGINT[], n DOUBLE)'
_KINDS = {"rights": "DOUBLE[]", "copies": "DOUBLE[]", "pairs": "DOUBLE[]",
          "copied_pairs": "DOUBLE[]", "flips": _FLIPS, "copied_flips": _FLIPS}


class _Parts:
    """The table of parts, each with its number, for DuckDB, which reads it when it scans it."""

    schema = pa.schema([*(SUMMARY.field(name) for name in KEY), ("part", pa.int64())])

    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes

    def __arrow_c_schema__(self) -> object:
        return self.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        summary = self._outcomes.summary
        columns = [*summary.select(KEY).columns, longs(np.arange(len(summary)))]
        return pa.Table.from_arrays(columns, schema=self.schema).__arrow_c_stream__()


def add_outcomes(con: duckdb.DuckDBPyConnection, outcomes: Outcomes) -> None:
    """Define on ``con`` the table ``_written__parts`` and the functions of its cells.

    A cell is a list of numbers of parts. ``answers(cell)`` → n, correct, copied;
    ``tally(cells)`` → :class:`Tally`; ``gaps(cell, other)`` → :class:`Gaps`;
    ``tally_pairs(cells, others)`` → :class:`PairTally`.
    """
    con.register("_written__parts", _Parts(outcomes))

    def answers(cells: Any) -> Any:
        return _struct(("n", "correct", "copied"), [outcomes.counts(c) for c in cells.to_pylist()])

    def tally(cells: Any) -> Any:
        return _struct(Tally._fields, [outcomes.tally(some) for some in cells.to_pylist()])

    def gaps(ours: Any, theirs: Any) -> Any:
        return _struct(Gaps._fields, [outcomes.gaps(*cells) for cells in _rows(ours, theirs)])

    def tally_pairs(ours: Any, theirs: Any) -> Any:
        return _struct(PairTally._fields,
                       [outcomes.tally_pairs(*cells) for cells in _rows(ours, theirs)])

    _add(con, answers, [_CELL], ("n", "correct", "copied"))
    _add(con, tally, [_CELLS], Tally._fields)
    _add(con, gaps, [_CELL, _CELL], Gaps._fields)
    _add(con, tally_pairs, [_CELLS, _CELLS], PairTally._fields)


def _add(con: duckdb.DuckDBPyConnection, function: Callable[..., Any], parameters: list[str],
         fields: Sequence[str]) -> None:
    kinds = ", ".join(f"{name} {_KINDS.get(name, 'BIGINT')}" for name in fields)
    con.create_function(
        function.__name__, function, [duckdb.sqltype(kind) for kind in parameters],
        duckdb.sqltype(f"STRUCT({kinds})"), type=PythonUDFType.ARROW,
        null_handling=FunctionNullHandling.SPECIAL)


def _rows(*columns: Any) -> Any:
    return zip(*(column.to_pylist() for column in columns), strict=True)


def _struct(fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    """A column of structures."""
    columns = zip(*rows, strict=True)
    return pa.StructArray.from_arrays(
        [_column(name, values) for name, values in zip(fields, columns, strict=True)],
        names=list(fields))


def _column(name: str, values: Sequence[Any]) -> Any:
    kind = _KINDS.get(name)
    if kind is None:
        return longs(values)
    if kind == "DOUBLE[]":
        return lists(values, pa.float64())
    return pa.StructArray.from_arrays(
        [lists([flips.values for flips in values], pa.float64()),
         lists([flips.counts for flips in values], pa.int64()),
         doubles([flips.n for flips in values])], names=list(Flips._fields))
