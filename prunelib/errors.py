"""The three ways in which things go wrong.

* :class:`UserError`: the user can fix it (a name, a file, a value). One line, exit code 2.
* :class:`UnitError`: one unit of work failed. It becomes a row, and the run goes on.
* :class:`EngineDeadError`: an engine process is gone. It is started again and the unit requeued.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class PrunelibError(Exception):
    """Base of every error that prunelib raises on purpose."""


class UserError(PrunelibError):
    """Something a user can fix; the message is one line that says how."""


class UnitError(PrunelibError):
    """A unit of work failed in a way that says nothing about the other units."""


class EngineDeadError(PrunelibError):
    """An inference engine no longer answers or no longer runs the weights we think."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """A :class:`UserError` for a name that is not there, with the nearest ones that are."""
    names = sorted(set(known) - {name})  # it may be a name elsewhere, but not here
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return UserError(f"unknown {kind} '{name}': {hint}")


def one_line(error: Exception) -> str:
    """What an error of another library says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
