"""How an answer to SQL is printed: as a table or records for people, as CSV, JSON or Parquet."""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import re
import sys
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from jobs.console import answering, put, put_pages
from prunelib.errors import printable

#: Text that Excel leaves alone: it begins with a letter, and is no month with a number.
_PLAIN_TEXT = re.compile(
    r"(?!(?:true|false)$|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\W*\d)"
    r"[^\W\d_].*|", re.IGNORECASE | re.DOTALL)
#: Characters that a text within a formula of Excel has at most, and its first inexact number.
_LONGEST, _EXACT = 255, 10**15


def print_parquet(answer: pa.Table) -> None:
    """Parquet on standard output."""
    import pyarrow.parquet as pq

    with answering():
        pq.write_table(_distinct(answer), sys.stdout.buffer)


def print_csv(answer: pa.Table) -> None:
    """CSV on standard output; lists and other nested values are JSON within it."""
    import pyarrow.csv as pc

    answer = _distinct(answer)
    columns = [column if _flat(column.type) else pa.array(
        [None if value is None else _json(value) for value in column.to_pylist()], pa.string())
        for column in answer.columns]
    with answering():
        pc.write_csv(pa.Table.from_arrays(columns, names=answer.column_names), sys.stdout.buffer)


def print_excel(answer: pa.Table) -> None:
    """CSV that Excel reads as it is: UTF-8 by its mark, and every text a text."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\r\n")
    found = _distinct(answer)
    lines.writerow(map(_excel, found.column_names))
    for row in found.to_pylist():
        lines.writerow(map(_excel, row.values()))
    with answering():
        sys.stdout.buffer.write(codecs.BOM_UTF8 + text.getvalue().encode())


def print_markdown(answer: pa.Table) -> None:
    """A table in Markdown."""
    found = _distinct(answer)
    rule = ["---:" if _number(column.type) else "---" for column in found.columns]
    rows = [found.column_names, rule, *(row.values() for row in found.to_pylist())]
    for row in rows:
        cells = (_cell(value).replace("\\", "\\\\").replace("|", "\\|") for value in row)
        put(f"| {' | '.join(cells)} |\n")


def print_json(answer: pa.Table) -> None:
    """A JSON object for each row. Numbers that JSON has no word for are null."""
    for row in _distinct(answer).to_pylist():
        put(f"{json.dumps(_plain(row), allow_nan=False)}\n")


def print_table(answer: pa.Table, console: Console) -> None:
    """A table; where a terminal is too narrow for it, a line for each value of each row."""
    names = _distinct(answer).column_names
    rows = [[_cell(value) for value in row.values()] for row in _distinct(answer).to_pylist()]
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for name, column in zip(names, answer.columns, strict=True):
        table.add_column(Text(printable(name)), no_wrap=True,
                         justify="right" if _number(column.type) else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    wide = Console(width=10_000_000, file=io.StringIO())
    width = Measurement.get(wide, wide.options, table).maximum
    narrow = console.is_terminal and width > console.width
    text = io.StringIO()
    page = Console(width=console.width if narrow else max(width, 1), file=text,
                   safe_box=console.options.ascii_only, force_terminal=console.is_terminal,
                   color_system=console.color_system)  # type: ignore[arg-type]
    if narrow:
        _records(names, rows, page)
    else:
        page.print(table)
    put_pages(text.getvalue(), console)


def _records(names: list[str], rows: list[list[str]], console: Console) -> None:
    space = max(map(len, map(printable, names)))
    for i, row in enumerate(rows):
        if i:
            console.print()
        for name, value in zip(map(printable, names), row, strict=True):
            console.print(Text.assemble((f"{name:>{space}}  ", "bold"), value), soft_wrap=True)


def _excel(value: Any) -> Any:
    """A cell that Excel takes for what it is.

    It would compute a text such as ``=1+1``, and make numbers or dates of ``007``, ``1-2`` and
    ``MARCH1``; a whole number loses what is beyond 15 digits.
    """
    if isinstance(value, list | tuple | dict):
        value = _json(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        return _plain(value)
    text = str(value)
    if isinstance(value, int) and abs(value) < _EXACT:
        return value
    if _PLAIN_TEXT.fullmatch(text):
        return text
    quoted = text.replace('"', '""')
    return f'="{quoted}"' if len(text) <= _LONGEST and "\n" not in text else f"'{text}"


def _distinct(answer: pa.Table) -> pa.Table:
    """With a number behind each column name that was there before."""
    names: list[str] = []
    for name in answer.column_names:
        number, wanted = 1, name
        while wanted in names:
            number += 1
            wanted = f"{name}_{number}"
        names.append(wanted)
    return answer.rename_columns(names)


def _flat(kind: pa.DataType) -> bool:
    """Whether pyarrow writes values of a type into CSV."""
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    number = pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    return bool((text or number) and not pa.types.is_interval(kind))


def _number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind)
                or pa.types.is_decimal(kind))


def _json(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """A value of Arrow's as JSON has values."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime | date | time):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _cell(value: Any) -> str:
    """A value on one line; nothing in it is obeyed by a terminal."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple | dict):
        return printable(", ".join(_parts(value)))
    return "" if value is None else printable(str(value))


def _parts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (f"{key}: {_cell(one)}" for key, one in value.items())
    else:
        yield from map(_cell, value)
