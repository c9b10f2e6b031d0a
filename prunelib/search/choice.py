"""The rule that chooses one cell of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunelib.components import Ablation


@dataclass(frozen=True)
class Cell:
    """One (layer, rate) of a grid, with its outcome on the same examples in the same order.

    Attributes:
        correct: per example, ``[examples]``.
        copied: per example, ``[examples]``.
    """

    layer: int
    rate: float
    ablation: Ablation
    correct: NDArray[np.bool_]
    copied: NDArray[np.bool_]


def choose(cells: Sequence[Cell]) -> Cell:
    """Accuracy, then copying error, then the smallest rate within one paired standard error.

    The best cell has the highest accuracy, ties going to the lowest copying error, the smallest
    rate and the first layer, in that order. Of its layer, the smallest rate is taken whose
    accuracy is below the best by no more than one standard error of the paired difference.
    """
    best = min(
        cells, key=lambda c: (-c.correct.mean(), c.copied.mean(), c.rate, c.layer)
    )
    for cell in sorted((c for c in cells if c.layer == best.layer), key=lambda c: c.rate):
        lost = best.correct.astype(float) - cell.correct.astype(float)
        error = lost.std(ddof=1) / np.sqrt(len(lost)) if len(lost) > 1 else 0.0
        if lost.mean() <= error:
            return cell
    return best
