"""``prunelib export``: a changed checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.options import Digest, Model, Results, Trust
from jobs.console import console
from jobs.places import check_new
from jobs.stored_intervention import stored_intervention


def export(
    model: Model,
    intervention: Digest,
    results: Results,
    out: Annotated[Path, typer.Option(help="New folder for the checkpoint.", metavar="FOLDER")],
    trust: Trust = False,
) -> None:
    """Write a changed checkpoint, which loads without prunelib.

    The intervention is written into the weights, which transformers and vLLM load.

    Example: `prunelib export reference/llama-copier --intervention 3f2a --results results/demo
    --out pruned`
    """
    from prunelib.interventions.export import export as write

    check_new(out)  # before the weights are read
    found = stored_intervention(model, intervention, results, trust)
    folder = write(found.info, found.intervention, out)
    console.print(f"{found.intervention} written to {folder}", highlight=False)
