"""A pruned checkpoint: an ablation written into the weights, to be loaded without prunelib."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelib.components import Ablation
from prunelib.errors import UserError
from prunelib.interventions.masking import check_fits
from prunelib.models import ModelInfo, adapter_for
from prunelib.models.adapter import output_dim
from prunelib.models.checkpoint import TOKENIZER_FILES
from prunelib.models.loading import load_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Says in the folder what was done to which weights.
ABOUT = "ablation.json"


def export(info: ModelInfo, ablation: Ablation, out: str | Path) -> Path:
    """Write ``info``'s checkpoint with ``ablation`` in its weights to the new folder ``out``.

    Off means zero: the input columns of the MLP's output projection, or the rows of another
    projection, with their biases except at ``mlp_row``, so plain transformers and plain vLLM
    compute what an engine computes under the ablation. Weights keep their dtype; shapes stay as
    they are.

    Returns the folder, which appears whole or not at all.

    Raises:
        UserError: ``out`` exists or cannot be made, a component is not in this model, or the
            checkpoint is incomplete.
    """
    check_fits(ablation, info)
    folder = Path(out)
    if folder.exists():
        raise UserError(f"{folder} exists: give a new folder")
    model = load_weights(info, "auto")
    switch_off(model, info, ablation)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as temp:
            made = Path(temp) / folder.name
            model.save_pretrained(made)
            # transformers writes the model's own code, but not the tokenizer's.
            code = list(Path(info.path).glob("*.py")) if info.trust_remote_code else []
            for file in (*(Path(info.path) / name for name in TOKENIZER_FILES), *code):
                if file.is_file():
                    shutil.copy(file, made / file.name)
            (made / ABOUT).write_text(json.dumps(_about(info, ablation), indent=1) + "\n")
            made.rename(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder


def switch_off(model: PreTrainedModel, info: ModelInfo, ablation: Ablation) -> None:
    """Zero the weights of an ablation's components, in place."""
    import torch

    adapter = adapter_for(info.model_type)
    with torch.no_grad():
        for component in ablation.components:
            path, enters = adapter.place(component.site)
            projection: Any = adapter.layers(model)[component.layer].get_submodule(path)
            outputs = output_dim(projection)
            span = info.span(component.site)
            first = component.index * span
            projection.weight.narrow(1 - outputs if enters else outputs, first, span).zero_()
            if not enters and component.site != "mlp_row" and projection.bias is not None:
                projection.bias[first : first + span] = 0


def _about(info: ModelInfo, ablation: Ablation) -> dict[str, Any]:
    return {
        "model": info.id,
        "revision": info.revision,
        "weights_digest": info.weights_digest,
        "ablation": ablation.digest,
        "components": [[c.layer, c.site, c.index] for c in ablation.components],
    }
