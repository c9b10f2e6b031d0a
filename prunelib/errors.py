"""The three ways in which things go wrong.

* :class:`UserError`: the user can fix it (a name, a file, a value). One line, exit code 2.
* :class:`UnitError`: one unit of work failed. It becomes a row, and the run goes on.
* :class:`EngineDeadError`: an engine process is gone. It is started again and the unit requeued.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

#: The most characters of a name, and of a message, that are shown.
_NAME = 80
_LINE = 400


class PrunelibError(Exception):
    """Base of every error that prunelib raises on purpose."""


class UserError(PrunelibError, ValueError):
    """Something a user can fix; the message says how, in one line for each mistake.

    It is a ``ValueError`` so that pydantic goes on after it and finds the other mistakes too.
    """


class UnitError(PrunelibError):
    """A unit of work failed in a way that says nothing about the other units."""


class EngineDeadError(PrunelibError):
    """An inference engine no longer answers or no longer runs the weights we think."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """A :class:`UserError` for a name that is not there, with the nearest ones that are."""
    names = sorted(set(known) - {name})  # it may be a name elsewhere, but not here
    near = get_close_matches(name[:_NAME], names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {_listed(names)}"
    return UserError(f"unknown {kind} {shown(name)}: {hint}")


def _listed(names: list[str]) -> str:
    """Names, as many as fit a line."""
    kept, length = 0, 0
    while kept < len(names) and length + len(names[kept]) < 2 * _NAME:
        length += len(names[kept]) + 2
        kept += 1
    more = len(names) - kept
    return ", ".join(names[:kept]) + (f" and {more} more" if more else "")


def shown(value: object) -> str:
    """What a user gave, in quotes and short enough for a message."""
    text = printable(value if isinstance(value, str) else repr(value))
    cut = text if len(text) <= _NAME else f"{text[:_NAME - 20]}…{text[-15:]}"
    return f"'{cut}'" if isinstance(value, str) else cut


def printable(text: str) -> str:
    """A text on one line: what a terminal would obey or could not show is written as an escape."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def one_line(error: Exception | str) -> str:
    """What an error says, of another library too, on one line that is not too long."""
    text = printable(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= _LINE else f"{text[:_LINE - 1]}…"
