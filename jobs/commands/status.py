"""``prunelib status``: how far a run is, at this moment."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.commands.options import HERE, Address, RunName
from jobs.console import console, errors
from prunelib.errors import UserError


def status(
    job: Annotated[str | None, typer.Argument(
        help="Job, as `prunelib submit` printed it.", metavar="JOB")] = None,
    results: Annotated[str | None, typer.Option(
        "--results", "-r", help="Where the run's results are: a folder or a URL.",
        metavar="PLACE")] = None,
    run: RunName = None,
    address: Address = HERE,
) -> None:
    """Show how far a run is: stages, rate, failures, time left.

    With --results all of it is read from the result files, without Ray, from any machine; the
    cluster is asked for a job only.

    Examples:
    - `prunelib status JOB --address http://head:8265`
    - `prunelib status --results s3://bucket/mine`
    """
    from jobs.watch import draw
    from prunelib.pipeline.progress import read_progress

    if job is not None:
        from cluster.submission import Jobs

        found = Jobs(address).get(job)
        message = f" ({found.message.splitlines()[0]})" if found.message else ""
        console.print(f"{found.id}: {found.state.lower()}{message}", soft_wrap=True,
                      highlight=False, markup=False)
        results, run = results or found.results, run or found.run
    if results is None:
        raise UserError("give --results, or a job that prunelib has submitted")
    try:
        console.print(draw(read_progress(results, run)))
    except UserError as error:
        if job is None:
            raise
        errors.print(f"its results cannot be shown: {error}", markup=False)
