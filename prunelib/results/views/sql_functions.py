"""The statistics of :mod:`prunelib.scoring.statistics` as functions of SQL.

A view counts what the answers to one query (one text in one task) add up to, then adds that up for
each task with ``share_sums``, ``pair_sums`` or ``flip_sums``, and gives the list of its tasks' sums
to a function below. A list of one task is that task alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from duckdb.func import FunctionNullHandling, PythonUDFType
from numpy.typing import NDArray

from prunelib.results.views.arrow_columns import doubles, flags, intervals, numbers
from prunelib.results.views.condition_functions import add_condition_functions
from prunelib.scoring.statistics import (
    Array,
    difference_intervals,
    drawn_interval,
    drawn_p,
    mean_interval,
    share_intervals,
    sign_flip_p,
)

# Aggregates over queries: n answers (or pairs), of which x count (or gained and lost).
_MACROS = """
CREATE MACRO share_sums(n, x) AS
    [count(*), sum(n), sum(n * n), sum(x), sum(x * x), sum(n * x)]::DOUBLE[];
CREATE MACRO pair_sums(n, gained, lost) AS
    [count(*), sum(n), sum(n * n), sum(gained), sum(gained * gained), sum(n * gained), sum(lost),
     sum(lost * lost), sum(n * lost), sum(gained * lost)]::DOUBLE[];
CREATE MACRO flip_sums(n, difference) AS
    {'values': map_keys(histogram(round(difference, 9)::DOUBLE)),
     'counts': map_values(histogram(round(difference, 9)::DOUBLE))::BIGINT[], 'n': sum(n)::DOUBLE};
"""
# After the functions that it calls.
_FLIP_MACRO = """
CREATE MACRO sign_flip(tasks) AS signs_flipped(
    flatten([t."values" for t in tasks]), flatten([t.counts for t in tasks]),
    flatten([[1 / t.n for _ in t."values"] for t in tasks]));
"""
_SUMS = "DOUBLE[][]"


def add_functions(con: duckdb.DuckDBPyConnection) -> None:
    """Define on ``con`` the functions that the views need; a null argument gives null.

    Aggregates of one task: ``share_sums(n, x)``, ``pair_sums(n, gained, lost)`` and
    ``flip_sums(n, difference)``, all over queries. Functions of a list of tasks' sums:
    ``share_interval(list)`` and ``difference_interval(list)`` → [low, high],
    ``sign_flip(list)`` → p. With the standard deviation over random sets and their number, null for
    one set: ``drawn_share_interval(list, sd, sets)``, ``drawn_difference_interval(list, sd, sets)``
    → [low, high], ``drawn_p(list, sd, sets)``. ``mean_interval(mean, sd, n)`` is Student's t.
    ``steered_places(content)`` is what a steering has in common with its random controls, as text.
    """
    con.execute(_MACROS)
    drawn = [_SUMS, "DOUBLE", "BIGINT"]
    # DuckDB counts the parameters of a function, so each has its own number of them.
    _add(con, "share_interval", lambda s: intervals(*_of_sums(share_intervals, s)), [_SUMS])
    _add(con, "difference_interval", lambda s: intervals(*_of_sums(difference_intervals, s)),
         [_SUMS])
    _add(con, "drawn_share_interval", lambda s, d, m: intervals(*_of_sums(_drawn_share, s, d, m)),
         drawn)
    _add(con, "drawn_difference_interval",
         lambda s, d, m: intervals(*_of_sums(_drawn_difference, s, d, m)), drawn)
    _add(con, "drawn_p", lambda s, d, m: doubles(_of_sums(drawn_p, s, d, m)[0]),
         drawn, "DOUBLE")
    _add(con, "mean_interval", lambda v, s, n: intervals(*mean_interval(*map(_numbers, (v, s, n)))),
         ["DOUBLE", "DOUBLE", "BIGINT"])
    _add(con, "signs_flipped", _signs_flipped, ["DOUBLE[]", "BIGINT[]", "DOUBLE[]"], "DOUBLE")
    con.execute(_FLIP_MACRO)
    _add(con, "steered_places", _steered_places, ["VARCHAR"], "VARCHAR")
    add_condition_functions(con)


def _drawn_share(sums: Array, rows: NDArray[np.int64], sd: Array, sets: Array
                 ) -> tuple[Array, Array]:
    share = np.bincount(rows, sums[:, 3] / sums[:, 1]) / np.bincount(rows)
    low, high = drawn_interval(share, share_intervals(sums, rows), sd, sets)
    return np.maximum(low, 0), np.minimum(high, 1)


def _drawn_difference(sums: Array, rows: NDArray[np.int64], sd: Array, sets: Array
                      ) -> tuple[Array, Array]:
    value = np.bincount(rows, (sums[:, 3] - sums[:, 6]) / sums[:, 1]) / np.bincount(rows)
    low, high = drawn_interval(value, difference_intervals(sums, rows), sd, sets)
    return np.maximum(low, -1), np.minimum(high, 1)


def _of_sums(function: Callable[..., Any], lists: Any, *others: Any) -> tuple[Array, ...]:
    """What ``function`` gives of a column of lists of tasks' sums, nan where there are none."""
    column = _array(lists)
    inner = column.flatten()
    lengths = np.diff(numbers(column.offsets)) * flags(column.is_valid())
    rows = np.repeat(np.arange(len(column)), lengths)
    rows = rows[flags(inner.is_valid())]
    present, rows = np.unique(rows, return_inverse=True)
    results: list[Array] = [np.full(len(column), np.nan)] * 2
    if not len(rows):
        return tuple(results)
    sums = numbers(inner.flatten()).reshape(len(rows), -1)
    found = function(sums, rows, *(_numbers(values)[present] for values in others))
    for place, values in enumerate(found if isinstance(found, tuple) else (found,)):
        results[place] = np.full(len(column), np.nan)
        results[place][present] = values
    return tuple(results)


def _signs_flipped(values: Any, counts: Any, weights: Any) -> Any:
    rows = zip(*(column.to_pylist() for column in (values, counts, weights)), strict=True)
    return doubles([np.nan if None in row or not row[0] else sign_flip_p(*row) for row in rows])


def _steered_places(contents: Any) -> Any:
    return pa.array(map(_places, contents.to_pylist()), pa.string())


def _places(content: str | None) -> str | None:
    from prunelib.interventions.random_directions import same_places
    from prunelib.interventions.steering import Steering

    try:
        return None if content is None else same_places(Steering.from_content(json.loads(content)))
    except (KeyError, TypeError, ValueError):  # no steering: a null, so that the view is there
        return None


def _array(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _numbers(column: Any) -> Array:
    found = _array(column).cast(pa.float64())
    return np.where(flags(found.is_valid()), numbers(found), np.nan)


def _add(con: duckdb.DuckDBPyConnection, name: str, function: Callable[..., Any],
         parameters: list[str], result: str = "DOUBLE[]") -> None:
    con.create_function(
        name,
        function,
        [duckdb.sqltype(parameter) for parameter in parameters],
        duckdb.sqltype(result),
        type=PythonUDFType.ARROW,
        null_handling=FunctionNullHandling.SPECIAL,
    )
