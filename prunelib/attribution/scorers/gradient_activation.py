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
    """Σ over positions of activation × gradient, of each prompt: ``[layers, prompts, neurons]``.

    The integrand of integrated gradients at α = 1, so the first-order effect of a neuron on the
    model as it runs. One forward and backward pass for all layers.
    """
    each = []
    for start in range(0, len(prompts), rows):
        found = block_gradients(loaded, path, prompts[start : start + rows], objective, np.ones(1),
                                rows, np.ones((1, 1)))
        each.append(np.stack([part.each[0] for part in found if part.each is not None]))
    return np.concatenate(each, 1)
