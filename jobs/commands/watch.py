"""``prunelib watch``: how far a run is, until it ends."""

from __future__ import annotations

import typer

from jobs.commands.options import Results, RunName
from jobs.console import console


def watch(
    results: Results,
    run: RunName = None,
) -> None:
    """Show how far a run is until it ends.

    Reads the result files alone, so it works from any machine. Redraws a table on a terminal and
    prints plain lines elsewhere. Ctrl-C ends watching, not the run. The exit code is 1 unless the
    run is done.

    Example: `prunelib watch --results s3://bucket/mine`
    """
    from jobs.watch import watch_run

    raise typer.Exit(watch_run(results, run, console))
