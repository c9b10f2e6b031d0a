"""Where the command line prints."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

#: Off a terminal there is no edge to wrap at; tables stay whole.
console = Console(width=None if sys.stdout.isatty() else 200)
errors = Console(stderr=True, soft_wrap=True, highlight=False)


def listing(name: str, *columns: str, title: str | None = None) -> Table:
    """A table to fill, whose first column is never cut: its names are there to be copied."""
    table = Table(title=title, title_justify="left")
    table.add_column(name, no_wrap=True, overflow="fold")
    for column in columns:
        table.add_column(column)
    return table
