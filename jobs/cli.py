"""The command line ``prunelib``: its commands are in :mod:`jobs.commands`."""

from __future__ import annotations

import sys

import typer

from jobs.commands.registry import add_commands
from jobs.console import print_error
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
    """Entry point: what a user can fix ends in one line for each mistake and exit code 2."""
    try:
        app()
    except UserError as error:
        print_error(error)
        sys.exit(2)
    except OSError as error:  # a place that cannot be read or written
        if error.filename is None:
            raise
        print_error(UserError(f"{error.filename}: {error.strerror}"))
        sys.exit(2)


if __name__ == "__main__":
    main()
