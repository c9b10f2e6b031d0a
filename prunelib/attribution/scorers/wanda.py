"""Wanda: the magnitude of weights times that of what they multiply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from prunelib.attribution.integrated_gradients import PATH_ROWS, Array, Path
from prunelib.attribution.objectives.base import Objective
from prunelib.attribution.scorers.base import neuron_values, switched
from prunelib.models import Loaded
from prunelib.models.adapter import output_dim
from prunelib.tasks.tokenization import Encoded

if TYPE_CHECKING:
    from torch import Tensor


def wanda(
    loaded: Loaded, path: Path, prompts: Sequence[Encoded], objective: Objective,
    rows: int = PATH_ROWS,
) -> Array:
    """Σ over the weights of a neuron of |weight| × ‖what the weight multiplies‖₂.

    The score of Wanda (Sun et al. 2024, Eq. 1), added up over the weights that are lost with the
    neuron: those it feeds in the output projection, or those that feed it where it is an output of
    the projection. The norm runs over all positions of all prompts. One forward pass; no labels.
    """
    inputs = [values.pow(2).sum(0).sqrt() for values in
              neuron_values(loaded, path, prompts, rows, _norm, inputs=True)]
    scores = []
    for layer, norm in zip(path.layers, inputs, strict=True):
        projection = switched(loaded, layer)
        weight = projection.weight.double().abs().cpu()
        weight = weight.T if output_dim(projection) else weight  # [outputs, inputs]
        scores.append((weight.sum(0) * norm if path.site == "mlp_hidden" else weight @ norm)
                      .numpy())
    return np.stack(scores)


def _norm(values: Tensor, mask: Tensor) -> Tensor:
    return (values.pow(2) * mask).sum(1).sqrt()
