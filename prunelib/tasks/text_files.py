"""Text files of rows: CSV, TSV and JSON. Nothing in them is typed.

``007``, ``true``, ``1e5``, ``+5``, ``1.10`` and dates are the characters that stand in the file.
A row that cannot be read as it was meant is refused: none is lost to a stray quotation mark.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from typing import IO, Any, NoReturn

from prunelib.errors import UserError

Row = dict[str, Any]


def delimited(file: IO[str], where: str, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV or TSV file with the number of their first line; blank lines are none.

    Fields of a CSV file may be quoted. In a TSV file every line is a row, and a quotation mark is
    a character: a line is refused where other readers would join it to those below.

    Args:
        file: opened with ``newline=""``.
        where: what the file is called in messages.
        delimiter: what parts the fields; a tab makes it a TSV file.

    Raises:
        UserError: a row has more or fewer fields than the first one; a quoted field does not
            end, or goes on over lines that are rows themselves.
    """
    csv.field_size_limit(sys.maxsize)
    lines = _Lines(file)
    tabs = delimiter == "\t"
    reader = csv.reader(lines, delimiter=delimiter, strict=True,
                        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL)
    width = 0
    while True:
        lines.taken.clear()
        start = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{where}, line {start}: {error}: a quotation mark inside a quoted "
                            "field is written twice") from error
        if fields is None:
            return
        if not any(fields) and len(fields) < 2:
            continue
        width = width or len(fields)
        if len(fields) != width:
            raise UserError(f"{where}, line {start}: {len(fields)} fields, where the first line "
                            f"has {width}")
        if (_left_open(lines.taken[0]) if tabs else len(lines.taken) > 1 and all(
                _is_row(line, delimiter, width) for line in lines.taken)):
            raise UserError(f"{where}, line {start}: a field begins with a quotation mark and does "
                            "not end with one on its line, so that it is not clear where the row "
                            "ends: write the file as JSON lines")
        yield start, fields


class _Lines:
    """The lines of a file, of which those since the last row are kept."""

    def __init__(self, file: IO[str]) -> None:
        self._file = iter(file)
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._file)
        self.taken.append(line.rstrip("\r\n"))
        return line


def _left_open(line: str) -> bool:
    """Whether a reader of quoted fields would look for the end of this line's last one below."""
    return any(field.endswith("\n") for field in next(csv.reader([f"{line}\n"], delimiter="\t")))


def _is_row(line: str, delimiter: str, width: int) -> bool:
    """Whether a line alone has all its fields: prose has a blank behind its commas, or nothing."""
    fields = line.split(delimiter)
    return len(fields) == width and all(field and field == field.lstrip() for field in fields)


def table(file: IO[str], where: str, delimiter: str = ",") -> list[Row]:
    """The rows of a CSV or TSV file by the names in its first line; an empty field is ``None``.

    Raises :class:`UserError` as :func:`delimited`, or if two columns have one name.
    """
    rows = delimited(file, where, delimiter)
    _, names = next(rows, (0, []))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{where}: two columns are called '{twice}'")
    return [dict(zip(names, (field or None for field in fields), strict=True))
            for _, fields in rows]


class Mapping(dict[str, Any]):
    """A JSON object that also has its members as they stand there, keys that occur again too."""

    def __init__(self, members: list[tuple[str, Any]]) -> None:
        self.members = [(key, _spelled(value)) for key, value in members]
        super().__init__(self.members)


def json_value(text: str, where: str, again: bool = False) -> Any:
    """A JSON value whose numbers and truth values are text, spelled as they stand there.

    (Whole numbers stay numbers where that is the same spelling.) Objects are :class:`Mapping`.

    Args:
        text: the JSON.
        where: what it is called in messages.
        again: whether the outermost object may have a key several times.

    Raises:
        UserError: it is no JSON, or an object has a key twice.
    """
    repeated: list[Mapping] = []

    def read(members: list[tuple[str, Any]]) -> Mapping:
        found = Mapping(members)
        if len(found) < len(members):
            repeated.append(found)
        return found

    try:
        value = _spelled(json.loads(text, parse_int=_whole, parse_float=str, parse_constant=str,
                                    object_pairs_hook=read))
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON: {error}") from error
    except RecursionError as error:
        raise UserError(f"{where}: JSON that is nested too deep") from error
    for found in repeated:
        if not (again and found is value):
            keys = [key for key, _ in found.members]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise UserError(f"{where}: the key '{twice}' stands there twice in one object")
    return value


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) < 16 and str(int(digits)) == digits else digits


def _spelled(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return [_spelled(element) for element in value] if isinstance(value, list) else value


def json_lines(text: str, where: str) -> list[tuple[int, Any]]:
    """The values of JSON lines with the numbers of their lines.

    Raises :class:`UserError` if a line is not JSON.
    """
    return [(number, json_value(line, f"{where}, line {number}"))
            for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def json_rows(text: str, where: str) -> list[Row]:
    """The rows of a JSON file: an object a line, a list of objects, or an object of columns.

    Raises :class:`UserError` if it is neither.
    """
    if text.lstrip().startswith("["):
        values = json_value(text, where)
        # A list of texts alone is one column.
        rows = [{"text": value} if isinstance(value, str) else value for value in values]
    else:
        try:
            rows = [value for _, value in json_lines(text, where)]
        except UserError:
            if not text.lstrip().startswith("{"):
                raise
            rows = _from_columns(text, where)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            _no_rows(f"{where}, row {number}")
    return rows


def _from_columns(text: str, where: str) -> list[Row]:
    """Rows of one object over several lines, whose keys are columns."""
    try:
        content = json_value(text, where)
    except UserError:  # then it was meant as lines, and the message says which one is wrong
        json_lines(text, where)
        raise
    if columns := as_columns(content):
        return columns
    _no_rows(where)


def as_columns(content: dict[str, Any]) -> list[Row] | None:
    """The rows of an object of two or more lists of one length; ``None`` if it is another."""
    lists = list(content.values())
    if len(lists) < 2 or not all(isinstance(v, list) and len(v) == len(lists[0]) for v in lists):
        return None
    return [dict(zip(content, row, strict=True)) for row in zip(*lists, strict=True)]


def _no_rows(where: str) -> NoReturn:
    raise UserError(f"{where}: not a row: a row is an object such as "
                    '{"text": "…", "label": "…"}')
