"""``prunelib stop``: end a job."""

from __future__ import annotations

from jobs.commands.options import HERE, Address, JobId
from jobs.console import console


def stop(job: JobId, address: Address = HERE) -> None:
    """Stop a job.

    What it has finished stays; submitting the recipe again resumes it.

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
