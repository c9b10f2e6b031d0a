"""The magnitude of neurons' weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prunelib.attribution.integrated_gradients import PATH_ROWS, Array, Path
from prunelib.attribution.objectives.base import Objective
from prunelib.models import Loaded
from prunelib.models.adapter import output_dim
from prunelib.tasks.tokenization import Encoded


def weight(
    loaded: Loaded, path: Path, prompts: Sequence[Encoded], objective: Objective,
    rows: int = PATH_ROWS,
) -> Array:
    """‖weight row of the neuron in the scaled projection‖₂, ``[layers, neurons]``. No pass."""
    found = []
    for layer in path.layers:
        projection: Any = loaded.adapter.layers(loaded.model)[layer].get_submodule(path.projection)
        norms = projection.weight.double().norm(dim=1 - output_dim(projection))
        found.append(norms.cpu().numpy())
    return np.stack(found)
