"""``prunelib submit``: a recipe as a job of a Ray cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.commands.options import HERE, Address, RecipeFile
from jobs.console import console


def submit(
    recipe: RecipeFile,
    results: Annotated[str, typer.Option(
        "--results", "-r", help="Where the results go: a URL such as s3://bucket/mine, or an "
                                "absolute path that all nodes of the cluster share.",
        metavar="PLACE")],
    address: Address = HERE,
    gpus: Annotated[int, typer.Option(
        min=0, help="GPUs to ask an autoscaling cluster for, which may have none yet. Those that "
                    "are there are used anyway.", metavar="N")] = 0,
) -> None:
    """Start a recipe as a job of a Ray cluster.

    The job goes on when this machine is switched off. Submitting the recipe again attaches to the
    job while it runs, and resumes it when it has ended. It takes along prunelib's source, and what
    the recipe names of the current folder: modules of its functions, and files by relative paths
    (pairs, data sets, interventions). The cluster needs the environment, and its own access to the
    models and to the place of the results. Models that are not on this machine are checked by the
    job, before its first unit.

    A cluster is started with a token, `~/.ray/auth_token`, of which every machine that talks to
    it needs a copy: `(umask 077; ray get-auth-token --generate)` makes one, and
    `RAY_AUTH_MODE=token ray start --head` starts the cluster. Activate the environment first:
    a job runs the `python` that the cluster's head finds.

    Example: `prunelib submit recipe.yaml --address http://head:8265 --results s3://bucket/mine`
    """
    from cluster.submission import Jobs, check_location
    from prunelib.recipe.load import load_recipe

    load_recipe(recipe)  # before the cluster is asked for anything
    check_location(results)
    job, new = Jobs(address).submit(recipe, results, gpus)
    console.print(f"{'Submitted' if new else 'Attached to the running job'} {job.id}",
                  soft_wrap=True, highlight=False)
    at = "" if address == HERE else f" --address {address}"
    for line in (f"status {job.id}{at}", f"logs {job.id} --follow{at}", f"stop {job.id}{at}",
                 f"watch --results {job.results}"):
        console.print(f"Next: prunelib {line}", soft_wrap=True, highlight=False)
