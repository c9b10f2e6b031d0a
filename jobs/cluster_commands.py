"""The commands for a Ray cluster: submit a recipe as a job, read its log, stop it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from jobs.terminal import console, errors

JobId = Annotated[str, typer.Argument(help="Job, as `prunelib submit` printed it.", metavar="JOB")]
Address = Annotated[
    str,
    typer.Option(
        help="Dashboard of the cluster.",
        envvar="RAY_API_SERVER_ADDRESS",
    ),
]
#: Where a dashboard is unless it was started elsewhere; it is open on its own machine only.
HERE = "http://127.0.0.1:8265"


def submit(
    recipe: Annotated[Path, typer.Argument(help="Recipe file (YAML).", metavar="RECIPE")],
    results: Annotated[str, typer.Option(
        "--results", "-r", help="Where the results go: a URL such as s3://bucket/mine, or an "
                                "absolute path that all nodes of the cluster share.")],
    address: Address = HERE,
    gpus: Annotated[int | None, typer.Option(
        min=1, help="At most so many workers at a time; each takes one GPU (a sharded model: "
                    "as many as its tensor_parallel). Without it, all that are free.")] = None,
) -> None:
    """Start a recipe as a job of a Ray cluster, which goes on when this machine is switched off.

    Submitting it again attaches to the job while it runs, and resumes it when it has ended. The
    job takes prunelib's source with it; the cluster needs the environment. Models that are not
    on this machine are checked by the job, before its first unit.

    A cluster is started with a token, `~/.ray/auth_token`, which every machine that talks to it
    needs a copy of: `(umask 077; ray get-auth-token --generate)` makes one, and
    `RAY_AUTH_MODE=token ray start --head` starts the cluster.

    Example: `prunelib submit recipe.yaml --address http://head:8265 --results s3://bucket/mine`
    """
    from cluster.submission import Jobs

    job, new = Jobs(address).submit(recipe, results, gpus)
    console.print(f"{'Submitted' if new else 'Attached to the running job'} {job.id}",
                  soft_wrap=True, highlight=False)
    at = "" if address == HERE else f" --address {address}"
    for line in (f"status {job.id}{at}", f"logs {job.id} --follow{at}", f"stop {job.id}{at}",
                 f"watch --results {job.results}"):
        console.print(f"Next: prunelib {line}", soft_wrap=True, highlight=False)


def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job ends.")] = False,
    address: Address = HERE,
) -> None:
    """What a job has printed.

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


def stop(job: JobId, address: Address = HERE) -> None:
    """Stop a job. What it has finished stays; submitting the recipe again resumes it.

    Example: `prunelib stop JOB --address http://head:8265`
    """
    from cluster.submission import Jobs

    found, was_running = Jobs(address).stop(job)
    if not was_running:
        console.print(f"{found.id} is over already: {found.state.lower()}", highlight=False)
    elif found.ended:
        console.print(f"Stopped {found.id}", highlight=False)
    else:
        console.print(f"{found.id} was told to stop and is still {found.state.lower()}",
                      highlight=False)


COMMANDS: tuple[Callable[..., None], ...] = (submit, logs, stop)
