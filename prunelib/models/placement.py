"""Where the parts of a model are: on one device, or its layers spread over several.

Everything that is not a layer (embeddings, final norm, unembedding) is on the first device, so
that tied matrices are one, and prompts go in and logits come out there. Each device has one range
of layers; accelerate's hooks hand the residual stream on. A layer computes the same wherever it
is, so results are those of one device of that kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunelib.errors import UserError
from prunelib.models.info import ModelInfo
from prunelib.models.registry import adapter_for
from prunelib.models.shapes import elements, shapes

if TYPE_CHECKING:
    from torch import nn

#: A GPU by its number, ``cpu``, or ``disk``: read for each pass and computed on the first device.
Device = int | str


def devices(gpus: int) -> list[Device]:
    """The first ``gpus`` GPUs that this process sees; the CPU if it sees none.

    Raises :class:`UserError` if it sees fewer.
    """
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if 0 < there < gpus:
        raise UserError(f"{gpus} GPUs are asked for (tensor_parallel) and this process has {there}")
    return list(range(gpus)) if there else ["cpu"]


def device_map(info: ModelInfo, over: Sequence[Device]) -> dict[str, Device]:
    """Module → device, by which transformers loads a model over some devices.

    Every device gets the same share of the bytes, as nearly as whole layers allow.
    """
    model = shapes(Path(info.path), info.trust_remote_code)
    adapter = adapter_for(info.model_type)
    places: dict[str, Device] = {}
    parent: nn.Module = model
    before = ""
    for part in adapter.stack.split("."):
        places |= {before + name: over[0] for name, _ in parent.named_children() if name != part}
        parent, before = parent.get_submodule(part), f"{before}{part}."
    sizes = [elements(layer) for layer in adapter.layers(model)]
    whole = elements(model)
    done = whole - sum(sizes)
    for i, size in enumerate(sizes):
        places[f"{before}{i}"] = over[int((done + size / 2) * len(over) / whole)]
        done += size
    return places

