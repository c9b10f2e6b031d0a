"""Where the command line prints. What a terminal cannot show, or no longer takes, ends nothing."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prunelib.errors import UserError, printable

#: What stands for characters that an encoding lacks; others become escapes.
_INSTEAD = {"–": "-", "—": "-", "−": "-", "─": "-", "…": "...", "→": "->", "×": "x", "·": "*",
            "•": "*"}


class _Stream:
    """Standard output or error, whatever it is at the moment; once it is closed, nothing."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _now(self) -> IO[str]:
        now = getattr(sys, self._name)
        return cast("IO[str]", getattr(now, "rich_proxied_file", now))

    def write(self, text: str) -> int:
        """Write it if it can be written."""
        now = self._now()
        try:
            now.write(text)
        except UnicodeEncodeError as error:
            now.write(text.encode(error.encoding, "prunelib").decode(error.encoding))
        except OSError:
            close(now)
        return len(text)

    def flush(self) -> None:
        """Flush it if it can be flushed."""
        now = self._now()
        try:
            now.flush()
        except OSError:
            close(now)

    def __getattr__(self, name: str) -> object:
        return getattr(self._now(), name)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start:error.end]
    return "".join(_INSTEAD.get(c) or c.encode("ascii", "backslashreplace").decode()
                   for c in part), error.end


codecs.register_error("prunelib", _replaced)


def close(stream: IO[str]) -> None:
    """Let what else is written to a stream that nobody reads vanish without an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    finally:
        os.close(nowhere)


@contextmanager
def answering() -> Iterator[None]:
    """Writing an answer to standard output; if its reader has gone, that was enough of it.

    Raises :class:`UserError` if it cannot be written, as on a full disk.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        close(sys.stdout)
    except OSError as error:
        close(sys.stdout)
        raise UserError(f"the answer cannot be written: {error.strerror or error}") from error


def put(text: str) -> None:
    """Write a text as an answer."""
    encoding = sys.stdout.encoding or "utf-8"
    with answering():
        sys.stdout.write(text.encode(encoding, "prunelib").decode(encoding))


def put_pages(text: str, terminal: Console) -> None:
    """Write a text as an answer, through ``$PAGER`` if it is longer than the screen."""
    whole = not (terminal.is_terminal and sys.stdin.isatty() and sys.stdout.isatty())
    if whole or text.count("\n") < terminal.height:
        put(text)
        return
    import pydoc

    os.environ.setdefault("LESS", "-FRX")  # colours stay, and what was read stays on the screen
    pydoc.pager(text)


#: Off a terminal there is no edge to wrap at; tables stay whole.
console = Console(width=None if sys.stdout.isatty() else 200,
                  file=cast("IO[str]", _Stream("stdout")))
errors = Console(stderr=True, soft_wrap=True, highlight=False,
                 file=cast("IO[str]", _Stream("stderr")))


def listing(name: str, *columns: str, title: str | None = None) -> Table:
    """A table to fill, whose first column is never cut: its names are there to be copied."""
    table = Table(title=title, title_justify="left")
    table.add_column(name, no_wrap=True, overflow="fold")
    for column in columns:
        table.add_column(column)
    return table


def print_error(error: UserError) -> None:
    """What a user can fix: a line for each mistake."""
    for line in str(error).splitlines():
        errors.print(Text.assemble(("error: ", "red"), printable(" ".join(line.split()))))
