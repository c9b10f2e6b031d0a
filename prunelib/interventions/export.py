"""A changed checkpoint: an intervention written into the weights, to be loaded without prunelib."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from prunelib.errors import UserError
from prunelib.interventions.base import Intervention
from prunelib.interventions.files import write_file
from prunelib.models import ModelInfo
from prunelib.models.checkpoint import TOKENIZER_FILES

#: Says in the folder what was done to which weights.
ABOUT = "intervention.json"


def export(info: ModelInfo, intervention: Intervention, out: str | Path) -> Path:
    """Write ``info``'s checkpoint with ``intervention`` in its weights to the new folder ``out``.

    Weights keep their dtype. Returns the folder, which appears whole or not at all.

    Raises:
        UserError: ``out`` exists or cannot be made, the intervention cannot be done to this model
            or cannot be written into weights, or the checkpoint is incomplete.
    """
    intervention.check(info)
    folder = Path(out)
    if folder.exists():
        raise UserError(f"{folder} exists: give a new folder")
    model = intervention.written(info)
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
            write_file(info, intervention, made / ABOUT)
            made.rename(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder
