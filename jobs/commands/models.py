"""``prunelib models``: what a recipe's ``models`` can name."""

from __future__ import annotations

from jobs.console import console, listing


def models() -> None:
    """List the models that a recipe can name.

    Those that come with prunelib or were fetched, and the architectures of others.

    Example: `prunelib models`
    """
    from prunelib.models import describe, reference_models
    from prunelib.models.gguf import made_from
    from prunelib.models.pretrained import PRETRAINED
    from prunelib.models.registry import ADAPTERS

    table = listing("model", "type", "layers", "neurons a layer", "MB", "digest")
    fetched = [f"reference/{name}" for name, known in PRETRAINED.items()
               if made_from(known.sha256).is_dir()]
    for name in [*reference_models(), *fetched]:
        info = describe(name)
        table.add_row(name, info.model_type, str(info.layers), str(info.width),
                      f"{info.bytes / 1e6:.1f}", info.weights_digest[:12])
    console.print(table)
    kinds = ", ".join(sorted(t for adapter in ADAPTERS for t in adapter.model_types))
    console.print("A recipe can also name a local folder, a GGUF file or a model on the Hugging "
                  f"Face hub, of these architectures: {kinds}.")
    console.print(f"`prunelib reference fetch` gets pretrained ones: {', '.join(PRETRAINED)}.")
