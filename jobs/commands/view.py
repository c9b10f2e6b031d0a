"""``prunelib view``: a run's report in the browser, while it goes on."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from jobs.commands.options import Results, RunName
from jobs.console import console


def view(
    results: Results,
    run: RunName = None,
    port: Annotated[int, typer.Option(
        min=0, max=65535, help="Port; 0 for any that is free.", metavar="PORT")] = 0,
) -> None:
    """Show a run's report in the browser, with all examples, and follow the run.

    Serves on this machine alone, to who has the token of the address that it prints. Ctrl-C ends
    it, not the run.

    Example: `prunelib view --results results/demo`
    """
    from jobs.view import RunView, serve

    server, address = serve(RunView(results, run), port)
    console.print(f"Open {address}", soft_wrap=True, highlight=False)
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()
