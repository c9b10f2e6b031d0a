"""SADI (Wang et al. 2025, formulas.md §5.9): values that differ most are scaled, so by the input.

A' = A + δ·(A ⊙ M) at the last token of the prompt, where the mask M has the K components whose mean
difference between right and wrong answers is largest and positive, over all layers. As in the
released code the largest differences are meant, not the largest sizes. There a value is multiplied
by a strength s = 1 + δ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prunelib.interventions.contrast import Contrast
from prunelib.interventions.steering import Edit, Place, Steering


def sadi_hidden(contrast: Contrast, count: int, strength: float) -> Steering:
    """SADI-HIDDEN: dimensions of what MLPs add to the stream."""
    return _steering(contrast, "mlp_out", contrast.means["mlp_out"], count, strength)


def sadi_neuron(contrast: Contrast, count: int, strength: float) -> Steering:
    """SADI-NEURON: neurons, as they enter the MLP's output projection.

    The released code reads them behind the activation function, where a gated MLP has not yet
    multiplied them; to scale them there or here is the same.
    """
    return _steering(contrast, "mlp_hidden", contrast.means["mlp_hidden"], count, strength)


def sadi_head(contrast: Contrast, count: int, strength: float) -> Steering:
    """SADI-HEAD: heads, ranked by the mean over their dimensions."""
    means = contrast.means["head"].reshape(len(contrast.layers), contrast.heads, -1)
    return _steering(contrast, "head", means.mean(2), count, strength, means.shape[2])


def largest(scores: NDArray[np.float64], count: int) -> list[tuple[int, int]]:
    """Row and column of the ``count`` largest positive scores, at most; of equals the first."""
    order = np.argsort(-scores, axis=None, kind="stable")[:count]
    places = zip(*np.unravel_index(order, scores.shape), strict=True)
    return [(int(row), int(column)) for row, column in places if scores[row, column] > 0]


def _steering(contrast: Contrast, place: Place, scores: NDArray[np.float64], count: int,
              strength: float, span: int = 1) -> Steering:
    chosen: dict[int, list[int]] = {}
    for row, column in largest(scores, count):
        chosen.setdefault(contrast.layers[row], []).append(column)
    return Steering.of([
        Edit(layer, place, _dimensions(columns, span), factor=1 + strength)
        for layer, columns in chosen.items()], "prompt_end")


def _dimensions(components: Sequence[int], span: int) -> tuple[int, ...]:
    return tuple(c * span + i for c in sorted(components) for i in range(span))
