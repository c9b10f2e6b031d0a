"""Numbers of numpy as columns of Arrow and back, for functions of SQL.

``pyarrow.array`` and ``numpy.asarray`` would do, but they import pandas to look whether they were
given something of it, which takes longer than most questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

_TYPES = {pa.int32(): np.int32, pa.int64(): np.int64, pa.float64(): np.float64}


def numbers(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """A column's numbers; of null, anything."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values = array.buffers()[1] or b""
    return np.frombuffer(values, _TYPES[array.type])[array.offset : array.offset + len(array)]


def flags(column: pa.Array) -> NDArray[np.bool_]:
    """Yes or no; of null, anything."""
    bits = np.unpackbits(np.frombuffer(column.buffers()[1] or b"", np.uint8), bitorder="little")
    return bits[column.offset : column.offset + len(column)].astype(bool)


def doubles(values: ArrayLike) -> pa.Array:
    """A column of numbers, null where they are nan."""
    column = np.ascontiguousarray(values, np.float64)
    return pa.Array.from_buffers(pa.float64(), len(column),
                                 [_valid(~np.isnan(column)), pa.py_buffer(column)])


def longs(values: ArrayLike) -> pa.Array:
    """A column of whole numbers."""
    column = np.ascontiguousarray(values, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(column), [None, pa.py_buffer(column)])


def intervals(low: NDArray[np.float64], high: NDArray[np.float64]) -> pa.Array:
    """A column of [low, high], null where either is nan."""
    offsets = np.arange(0, 2 * len(low) + 1, 2, dtype=np.int32)
    return pa.Array.from_buffers(
        pa.list_(pa.float64()), len(low),
        [_valid(~(np.isnan(low) | np.isnan(high))), pa.py_buffer(offsets)],
        children=[doubles(np.stack([low, high], axis=1).ravel())])


def lists(rows: Sequence[ArrayLike], kind: pa.DataType) -> pa.Array:
    """A column of lists of numbers of ``kind``: int64 or float64."""
    arrays = [np.asarray(row) for row in rows]
    offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int32)
    values = np.concatenate(arrays) if arrays else []
    inner = longs(values) if kind == pa.int64() else doubles(values)
    return pa.Array.from_buffers(pa.list_(kind), len(arrays), [None, pa.py_buffer(offsets)],
                                 children=[inner])


def _valid(flags: NDArray[np.bool_]) -> pa.Buffer | None:
    return None if flags.all() else pa.py_buffer(np.packbits(flags, bitorder="little"))
