"""Activation times gradient: the first-order effect of switching a neuron off."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prunelib.attribution.integrated_gradients import PATH_ROWS, Array, Path, block_gradients
from prunelib.attribution.objectives.base import Objective
from prunelib.models import Loaded
from prunelib.tasks.tokenization import Encoded


def gradient_activation(
    loaded: Loaded, path: Path, prompts: Sequence[Encoded], objective: Objective,
    rows: int = PATH_ROWS,
) -> Array:
    """Σ over positions of activation × gradient, ``[layers, neurons]``.

    The integrand of integrated gradients at α = 1, so the first-order effect of a neuron on the
    model as it runs. One forward and backward pass for all layers.
    """
    total: Array | None = None
    for start in range(0, len(prompts), rows):
        some = prompts[start : start + rows]
        found = block_gradients(loaded, path, some, objective, np.ones(1), rows)
        sums = np.stack([part.sums[0] for part in found])
        total = sums if total is None else total + sums
    if total is None:
        raise ValueError("no prompts")
    return total / len(prompts)
