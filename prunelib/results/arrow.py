"""Rows as Arrow tables of the schemas: a row that does not fit is refused, never adapted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from numbers import Integral, Real
from typing import Any

import numpy as np
import pyarrow as pa

from prunelib.results.schemas import TABLES, words


def to_table(name: str, rows: list[dict[str, Any]] | pa.Table) -> pa.Table:
    """Rows as an Arrow table with exactly the schema of table ``name``.

    Raises:
        KeyError: no such table.
        ValueError: a column is missing or unknown, a value has another type or is no word of its
            column's vocabulary, or a column that is never null holds a null.
    """
    schema = TABLES[name]
    columns = _arrow_columns(name, schema, rows)
    for field, column in zip(schema, columns, strict=True):
        if not field.nullable and column.null_count:
            raise ValueError(f"{name}.{field.name} holds {column.null_count} nulls")
        if known := words(field):
            for word in set(column.unique().to_pylist()) - known:
                raise ValueError(f"{name}.{field.name} is {word!r}: known are "
                                 f"{', '.join(sorted(known))}")
    return pa.Table.from_arrays(columns, schema=schema)


def _arrow_columns(
    name: str, schema: pa.Schema, rows: list[dict[str, Any]] | pa.Table
) -> list[Any]:
    if isinstance(rows, pa.Table):
        _check_names(name, schema, rows.column_names)
        for field in schema:
            if (found := rows.schema.field(field.name).type) != field.type:
                raise ValueError(f"{name}.{field.name} is {found}, not {field.type}")
        return [rows.column(field.name) for field in schema]
    for row in rows:
        _check_names(name, schema, list(row))
    return [_convert(name, field, [row[field.name] for row in rows]) for field in schema]


def _check_names(name: str, schema: pa.Schema, found: list[str]) -> None:
    # Arrow would fill what is missing with nulls and drop what it does not know, silently.
    if len(found) == len(schema.names) and set(found) == set(schema.names):
        return
    missing = [n for n in schema.names if n not in found]
    unknown = [n for n in found if n not in schema.names]
    raise ValueError(f"row does not fit table {name}: missing {missing}, unknown {unknown}")


def _convert(name: str, field: pa.Field, values: list[Any]) -> Any:
    fits = _checker(field.type)
    for value in values:
        if not (value is None or fits(value)):
            raise ValueError(f"{name}.{field.name} is {field.type}, which {value!r} does not fit")
    try:
        return pa.array(values, field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name}.{field.name}: {error}") from error


def _checker(kind: pa.DataType) -> Callable[[Any], bool]:
    """Whether a Python or numpy value is of ``kind``; Arrow itself would store 1.5 as 1."""
    if pa.types.is_list(kind):
        inner = _checker(kind.value_type)
        return lambda v: (
            isinstance(v, Sequence | np.ndarray) and not isinstance(v, str) and all(map(inner, v))
        )
    if pa.types.is_integer(kind):
        return lambda v: isinstance(v, Integral) and not isinstance(v, bool)
    if pa.types.is_floating(kind):
        return lambda v: isinstance(v, Real) and not isinstance(v, bool)
    if pa.types.is_timestamp(kind):
        return lambda v: isinstance(v, datetime) and v.tzinfo is not None
    if pa.types.is_boolean(kind):
        return lambda v: isinstance(v, bool | np.bool_)
    return lambda v: isinstance(v, str)
