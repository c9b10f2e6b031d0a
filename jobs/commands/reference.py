"""``prunelib reference``: the reference models that come with prunelib."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from prunelib.errors import UserError, unknown_name

app = typer.Typer(help="Train the reference models that come with prunelib.", no_args_is_help=True)


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
