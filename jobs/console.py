"""Where the command line prints."""

from __future__ import annotations

import sys

from rich.console import Console

#: Off a terminal there is no edge to wrap at; tables stay whole.
console = Console(width=None if sys.stdout.isatty() else 200)
errors = Console(stderr=True, soft_wrap=True, highlight=False)
