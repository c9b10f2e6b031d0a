"""The commands for a Ray cluster: submit a recipe as a job, watch it, read its log, stop it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from jobs.console import console, errors
from prunelib.errors import UserError

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
    gpus: Annotated[int, typer.Option(
        min=0, help="GPUs to ask an autoscaling cluster for, which may have none yet. Those that "
                    "are there are used anyway.")] = 0,
) -> None:
    """Start a recipe as a job of a Ray cluster, which goes on when this machine is switched off.

    Submitting it again attaches to the job while it runs, and resumes it when it has ended. The
    job takes prunelib's source with it, and modules of the current folder that the recipe names
    objectives of; the cluster needs the environment, and its own access to models and to the place
    of the results. Models that are not on this machine are checked by the job, before its first
    unit.

    A cluster is started with a token, `~/.ray/auth_token`, which every machine that talks to it
    needs a copy of: `(umask 077; ray get-auth-token --generate)` makes one, and
    `RAY_AUTH_MODE=token ray start --head` starts the cluster. Activate the environment first:
    a job runs the `python` that its head finds.

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


def status(
    job: Annotated[str | None, typer.Argument(
        help="Job, as `prunelib submit` printed it.", metavar="[JOB]")] = None,
    results: Annotated[str | None, typer.Option(
        "--results", "-r", help="Where the run's results are: a folder or a URL.")] = None,
    run: Annotated[str | None, typer.Option(help="Run; by default the latest.")] = None,
    address: Address = HERE,
) -> None:
    """How far a run is: models and stages, rate, failures, time left.

    With --results all of it is read from the result files, without Ray, from any machine; the
    cluster is asked for a job only.

    Examples: `prunelib status JOB --address http://head:8265`,
    `prunelib status --results s3://bucket/mine`
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


def watch(
    results: Annotated[str, typer.Option(
        "--results", "-r", help="Where the run's results are: a folder or a URL.")],
    run: Annotated[str | None, typer.Option(help="Run; by default the latest.")] = None,
) -> None:
    """Show how far a run is until it ends, from its result files alone. Exit code 1 unless done.

    Redraws a table on a terminal and prints plain lines elsewhere. Ctrl-C ends watching, not the
    run.

    Example: `prunelib watch --results s3://bucket/mine`
    """
    from jobs.watch import watch_run

    raise typer.Exit(watch_run(results, run, console))


COMMANDS: tuple[Callable[..., None], ...] = (submit, status, watch, logs, stop)
