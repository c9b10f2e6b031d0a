"""``prunelib show``: the closing tables of a run."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.commands.options import RunName
from jobs.console import console


def show(
    results: Annotated[str, typer.Argument(
        help="Where the results are: a folder or a URL; by default the current folder.",
        metavar="RESULTS", show_default=False)] = ".",
    run: RunName = None,
) -> None:
    """Print the tables that a run ended with once more.

    They are made anew from the results, so those of a run that still goes on are as far as it is.

    Example: `prunelib show results/demo`
    """
    from jobs.run_summary import stored_summary

    console.print(stored_summary(results, run))
