"""The rule that chooses one cell of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prunelib.interventions.ablation import Ablation

#: What cells are compared by: 0/1 accuracy, or margins among equally accurate cells.
Statistic = Literal["accuracy", "margin"]


@dataclass(frozen=True)
class Cell:
    """One (layer, rate) of a grid, with its outcome on the same examples in the same order.

    Attributes:
        correct: per example, ``[examples]``.
        copied: per example, ``[examples]``.
        margin: per example, ``[examples]``: :class:`prunelib.search.grid.Answers`.
    """

    layer: int
    rate: float
    ablation: Ablation
    correct: NDArray[np.bool_]
    copied: NDArray[np.bool_]
    margin: NDArray[np.float64] | None = None


def choose(cells: Sequence[Cell], statistic: Statistic = "accuracy") -> Cell:
    """Accuracy, then copying error, then the smallest rate within one paired standard error.

    ``accuracy``: the best cell has the highest accuracy, ties going to the lowest copying error,
    the smallest rate and the first layer, in that order. Of its layer, the smallest rate is taken
    whose accuracy is below the best by no more than one standard error of the paired difference.

    ``margin``: for proxies where many cells are right nearly everywhere. Of the cells whose
    accuracy is below the highest by no more than one paired standard error, the best has the
    highest mean margin, ties as above. Of its layer, the smallest rate is taken whose accuracy
    and mean margin are both below the best by no more than one paired standard error. Accuracy
    comes first because margins alone would reward what merely makes a model unsure. Neither
    statistic sees what a cell does to other tasks; margins, being finer, give less room to the
    preference for small rates, which is what protects those.
    """
    best = min(cells, key=lambda c: (-c.correct.mean(), *_ties(c)))
    if statistic == "margin":
        near = [c for c in cells if _as_good(c.correct, best.correct)]
        best = min(near, key=lambda c: (-margins(c).mean(), *_ties(c)))
    return [*lighter(cells, best, statistic), best][0]


def lighter(cells: Sequence[Cell], best: Cell, statistic: Statistic) -> list[Cell]:
    """Smaller rates of the best cell's layer that are as good, as :func:`choose` has it.

    The smallest comes first.
    """
    return sorted((
        cell for cell in cells
        if cell.layer == best.layer and cell.rate < best.rate
        and _as_good(cell.correct, best.correct)
        and (statistic == "accuracy" or _as_good(margins(cell), margins(best)))
    ), key=lambda c: c.rate)  # fmt: skip


def margins(cell: Cell) -> NDArray[np.float64]:
    """The margins of a cell; ``ValueError`` if it has none."""
    if cell.margin is None:
        raise ValueError(f"layer {cell.layer}, rate {cell.rate} was evaluated without margins")
    return cell.margin


def _ties(cell: Cell) -> tuple[float, float, int]:
    return float(cell.copied.mean()), cell.rate, cell.layer


def _as_good(values: NDArray[Any], best: NDArray[Any]) -> bool:
    """Whether a mean is below the best by no more than one standard error of the difference."""
    lost = best.astype(float) - values
    error = lost.std(ddof=1) / np.sqrt(len(lost)) if len(lost) > 1 else 0.0
    return bool(lost.mean() <= error)
