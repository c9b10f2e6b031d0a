"""Templates: a string with a row's columns in braces, filled in row by row."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from itertools import product
from typing import Any

from prunelib.errors import UserError

#: Where the answer begins, at a template's end.
ANSWER = "answer"
#: Where a choice stands, in a template of a question whose choices are in its prompt.
CHOICE = "choice"
#: A column, or one element of a column that holds lists or has parts, such as ``choices[text][0]``.
_FIELD = re.compile(r"([A-Za-z_]\w*)(\[\w+\])*")


def template_columns(template: str) -> list[str]:
    """The columns that a template names, each once.

    Raises :class:`UserError` if it cannot be read, or does not end where the answer begins.
    """
    plain = template.endswith("{answer}")
    names = _names(template) if plain else []
    if names.count(ANSWER) != 1:
        raise UserError("a template ends with {answer}, where the answer begins, and has it once")
    return columns_of(name for name in names if name not in (ANSWER, CHOICE))


def text_columns(template: str) -> list[str]:
    """The columns that a template without ``{answer}`` names, each once."""
    return columns_of(_names(template))


def columns_of(names: Iterator[str] | list[str]) -> list[str]:
    """Columns of which some names are, or are parts of, each once."""
    columns: dict[str, None] = {}
    for name in names:
        found = _FIELD.fullmatch(name)
        if found is None:
            raise UserError(f"template: write a column as {{name}} or {{name[0]}}, "
                            f"not as {{{name}}} with anything else")
        columns[found[1]] = None
    return list(columns)


def has_choice(template: str) -> bool:
    """Whether the choice stands in the prompt."""
    return CHOICE in _names(template)


def _names(template: str) -> list[str]:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"template: {error} (a brace that is meant is written twice)") from error
    for _, name, spec, conversion in parts:
        if name is not None and (spec or conversion):
            raise UserError(f"template: write a column as {{name}} or {{name[0]}}, "
                            f"not as {{{name}}} with anything else")
    return [name for _, name, _, _ in parts if name is not None]


def filled(template: str, row: dict[str, Any], where: str) -> str:
    """A template with a row's columns. ``where`` names the row.

    Raises :class:`UserError` if a column of the template is empty, or lacks an element.
    """
    for column in text_columns(template):
        if row[column] is None:
            raise UserError(f"{where}: column '{column}' is empty")
    try:
        return _Lettered().vformat(template, (), row)
    except (IndexError, TypeError, KeyError) as error:
        raise UserError(f"{where}: the template names an element that a column does not have"
                        ) from error


def element(name: str, row: dict[str, Any], where: str) -> Any:
    """The value of a column or of a part of one, such as ``choices[text]``."""
    try:
        value = string.Formatter().get_field(name, (), row)[0]
    except (IndexError, TypeError, KeyError) as error:
        raise UserError(f"{where}: there is no '{name}'") from error
    if value is None:
        raise UserError(f"{where}: column '{name}' is empty")
    return value


class _Lettered(string.Formatter):
    """As ``str.format``, but a list becomes lettered lines: questions differ in how many."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, list):
            return "\n".join(f"{letter}: {choice}"
                             for letter, choice in zip(_letters(), value, strict=False))
        return format(value, format_spec)


def _letters() -> Iterator[str]:
    """A to Z, then AA, AB and so on, as in a spreadsheet."""
    length = 1
    while True:
        yield from map("".join, product(string.ascii_uppercase, repeat=length))
        length += 1
