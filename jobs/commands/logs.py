"""``prunelib logs``: what a job has printed."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from jobs.commands.options import HERE, Address, JobId
from jobs.console import errors


def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job ends.")] = False,
    address: Address = HERE,
) -> None:
    """Print what a job has printed.

    Example: `prunelib logs JOB --follow --address http://head:8265`
    """
    from cluster.submission import Jobs

    jobs = Jobs(address)
    for chunk in jobs.follow(job) if follow else [jobs.logs(job)]:
        sys.stdout.write(chunk)
        sys.stdout.flush()
    if follow:
        ended = jobs.get(job)
        errors.print(f"{ended.id}: {ended.state.lower()}")
