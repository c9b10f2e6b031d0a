"""The command line ``prunelib``: its commands are in :mod:`jobs.commands`."""

from __future__ import annotations

import sys

import typer
from rich.text import Text

from jobs.commands.registry import add_commands
from jobs.console import errors
from prunelib.errors import UserError

app = typer.Typer(
    help="Find copying neurons, switch them off, measure what happens, query the tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
add_commands(app)


def main() -> None:
    """Entry point: what a user can fix ends in one line and exit code 2."""
    try:
        app()
    except UserError as error:
        errors.print(Text.assemble(("error: ", "red"), " ".join(str(error).split())))
        sys.exit(2)


if __name__ == "__main__":
    main()
