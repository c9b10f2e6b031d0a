"""The magnitude of what neurons hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from prunelib.attribution.integrated_gradients import PATH_ROWS, Array, Path
from prunelib.attribution.objectives.base import Objective
from prunelib.attribution.scorers.base import neuron_values
from prunelib.models import Loaded
from prunelib.tasks.tokenization import Encoded

if TYPE_CHECKING:
    from torch import Tensor


def activation(
    loaded: Loaded, path: Path, prompts: Sequence[Encoded], objective: Objective,
    rows: int = PATH_ROWS,
) -> Array:
    """Mean over positions of |value|, of each prompt: ``[layers, prompts, neurons]``.

    The value is that which a mask would set to zero. One forward pass; no labels.
    """
    return np.stack([values.numpy()
                     for values in neuron_values(loaded, path, prompts, rows, _mean)])


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values.abs() * mask).sum(1) / mask.sum(1)
