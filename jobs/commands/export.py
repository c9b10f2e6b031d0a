"""``prunelib export``: a changed checkpoint, or an intervention as a small file."""

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
    out: Annotated[Path, typer.Option(
        help="New folder for the checkpoint, or new .json file for the intervention alone.",
        metavar="PATH")],
    trust: Trust = False,
) -> None:
    """Write a changed checkpoint, which loads without prunelib, or the intervention alone.

    Into a folder go the changed weights, which transformers and vLLM load. A file that ends in
    .json takes an intervention of any kind, for `interventions:` of a recipe and for
    `prunelib.interventions.apply`.

    Example: `prunelib export reference/llama-copier --intervention 3f2a --results results/demo
    --out pruned`
    """
    from prunelib.interventions.export import export as write_checkpoint
    from prunelib.interventions.files import write_file

    alone = out.suffix.lower() == ".json"
    check_new(out, "file" if alone else "folder")  # before the weights are read
    found = stored_intervention(model, intervention, results, trust)
    made = (write_file if alone else write_checkpoint)(found.info, found.intervention, out)
    console.print(f"{found.intervention} written to {made}", highlight=False)
