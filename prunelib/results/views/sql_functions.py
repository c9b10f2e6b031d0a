"""The statistics of :mod:`prunelib.scoring.statistics` as functions of SQL."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow as pa
from duckdb.func import FunctionNullHandling, PythonUDFType

from prunelib.scoring.statistics import mcnemar_exact, paired_bootstrap, sign_flip_p

_Z = 1.959963984540054  # 97.5% quantile of the normal distribution

# `stack` turns one histogram per task into aligned lists: values, counts, stratum of each.
_MACROS = f"""
CREATE MACRO _wilson_half(k, n) AS
    {_Z} * sqrt(k / n * (1 - k / n) / n + {_Z**2} / (4.0 * n * n));
CREATE MACRO wilson_low(k, n) AS CASE WHEN n = 0 THEN NULL WHEN k = 0 THEN 0.0
    ELSE (k / n + {_Z**2} / (2 * n) - _wilson_half(k, n)) / (1 + {_Z**2} / n) END;
CREATE MACRO wilson_high(k, n) AS CASE WHEN n = 0 THEN NULL WHEN k = n THEN 1.0
    ELSE (k / n + {_Z**2} / (2 * n) + _wilson_half(k, n)) / (1 + {_Z**2} / n) END;
CREATE MACRO stack(histograms, names) AS {{
    'v': flatten([map_keys(h) for h in histograms]),
    'c': flatten([map_values(h)::BIGINT[] for h in histograms]),
    's': flatten([[names[i] for _ in map_keys(h)] for h, i in histograms])}};
"""
_HISTOGRAM_MACROS = """
CREATE MACRO histogram_bootstrap(h) AS
    bootstrap(map_keys(h), map_values(h)::BIGINT[], NULL::VARCHAR[]);
CREATE MACRO histogram_flip(h) AS
    sign_flip(map_keys(h), map_values(h)::BIGINT[], NULL::VARCHAR[]);
"""


def add_functions(con: duckdb.DuckDBPyConnection) -> None:
    """Define on ``con`` the functions that the views need.

    ``wilson_low/high(successes, n)``, ``mcnemar(b, c)``, ``bootstrap(values, counts, strata)``
    → [low, high], ``sign_flip(values, counts, strata)``, and the last two of a histogram without
    strata. The bootstrap of no items is NULL.
    """
    con.execute(_MACROS)
    sample = ["DOUBLE[]", "BIGINT[]", "VARCHAR[]"]
    # DuckDB counts the parameters of a function, so each has its own number of them.
    _add(con, "mcnemar", lambda b, c: _rows(_mcnemar, b, c), ["BIGINT", "BIGINT"], "DOUBLE")
    _add(con, "sign_flip", lambda v, c, s: _rows(_p_value, v, c, s), sample, "DOUBLE")
    _add(con, "bootstrap", lambda v, c, s: _rows(_interval, v, c, s), sample, "DOUBLE[]")
    con.execute(_HISTOGRAM_MACROS)


#: Many tasks have the same few discordant pairs.
_mcnemar = functools.lru_cache(maxsize=1 << 16)(mcnemar_exact)


def _p_value(values: list[float], counts: list[int], strata: list[str] | None) -> float:
    return sign_flip_p(values, counts, strata=strata)


def _interval(
    values: list[float], counts: list[int], strata: list[str] | None
) -> list[float] | None:
    return list(paired_bootstrap(values, counts, strata=strata)) if any(counts) else None


def _rows(function: Callable[..., Any], *columns: Any) -> Any:
    """One call per row of Arrow columns; a null in the first two columns gives null."""
    kind = pa.list_(pa.float64()) if function is _interval else pa.float64()
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    return pa.array([None if None in row[:2] else function(*row) for row in rows], kind)


def _add(
    con: duckdb.DuckDBPyConnection,
    name: str,
    function: Callable[..., Any],
    parameters: list[str],
    result: str,
) -> None:
    con.create_function(
        name,
        function,
        [duckdb.sqltype(parameter) for parameter in parameters],
        duckdb.sqltype(result),
        type=PythonUDFType.ARROW,
        null_handling=FunctionNullHandling.SPECIAL,
    )
