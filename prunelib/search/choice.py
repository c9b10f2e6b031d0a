"""The rule that chooses one cell of a grid, or none.

Every comparison is exact: of whole numbers of examples, or of sums of margins that are rounded
once (``math.fsum``) or not at all (fractions). No tolerance is involved, and neither the order of
cells nor the number of examples can tip a tie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prunelib.interventions.ablation import Ablation

#: Which of the cells is taken: the best one, or the smallest rate that is about as good.
Choice = Literal["best", "smallest_within_error"]
#: What cells are compared by: 0/1 accuracy, or margins among equally accurate cells.
Statistic = Literal["accuracy", "margin"]
#: Whether "switch nothing off" may be the answer.
Nothing = Literal["candidate", "excluded"]


@dataclass(frozen=True)
class Rule:
    """How :func:`choose` decides: keys of the recipe's section ``search``."""

    choice: Choice
    statistic: Statistic = "accuracy"
    nothing: Nothing = "candidate"


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of one ablation, ``[examples]``, or of several, ``[ablations, examples]``.

    Attributes:
        margin: :class:`prunelib.search.grid.Answers`.
    """

    correct: NDArray[np.bool_]
    copied: NDArray[np.bool_]
    margin: NDArray[np.float64]

    @cached_property
    def right(self) -> int:
        """Right answers."""
        return int(np.count_nonzero(self.correct))

    @cached_property
    def total_margin(self) -> float:
        """Sum of the margins, rounded once; lower than any other where one is no number."""
        whole = np.isfinite(self.margin).all()
        return math.fsum(self.margin.tolist()) if whole else -math.inf


@dataclass(frozen=True, eq=False)
class Cell(Outcome):
    """One (layer, rate) of a grid, with its outcome on the same examples in the same order."""

    layer: int
    rate: float
    ablation: Ablation


def choose(cells: Sequence[Cell], rule: Rule, untouched: Outcome | None = None) -> Cell | None:
    """The cell that is chosen, or ``None``: switch nothing off.

    The **best** cell has the most right answers; among equals the fewest copied answers, the
    highest mean margin, the smallest rate, and the lowest digest of its ablation, in that order.
    (The last is neutral: it favours no layer.) With ``statistic: margin`` the best has the highest
    mean margin of those cells whose right answers are *as good* as the most; ties as above.

    A cell is **as good** as the best if it loses no more against it than one standard error of the
    paired difference: with b answers lost and c gained, if b <= c or (b - c)² <= b + c. That is one
    standard error exactly, whatever the number of examples, as the variance of a sum of n
    differences is n / (n - 1) × (b + c - (b - c)² / n). With ``statistic: margin`` the same has to
    hold of the margins' sum S of losses and sum of their squares Q: S <= 0 or S² <= Q.

    ``smallest_within_error`` takes the smallest rate of the best cell's layer that is as good.
    Nothing switched off is the smallest rate of every layer: it is chosen if the ``untouched``
    model is as good. ``best`` takes the best cell, and nothing if that has no more right answers
    than the untouched model (``statistic: margin``: if the untouched model is as good by right
    answers, and its mean margin is no lower). Without ``untouched``, or with ``nothing: excluded``,
    some cell is always chosen.
    """
    best = best_cell(cells, rule.statistic)
    if untouched is not None and rule.nothing == "candidate" and not _beats(best, untouched, rule):
        return None
    return [*lighter(cells, best, rule), best][0]


def best_cell(cells: Sequence[Cell], statistic: Statistic) -> Cell:
    """The best cell, as :func:`choose` has it."""
    most = max(cell.right for cell in cells)
    best = min((c for c in cells if c.right == most), key=_ties)
    if statistic == "margin":
        near = [c for c in cells if _as_right(c, best)]
        best = min(near, key=lambda c: (-c.total_margin, *_ties(c)))
    return best


def lighter(cells: Sequence[Cell], best: Cell, rule: Rule) -> list[Cell]:
    """Smaller rates of the best cell's layer that the rule prefers to it, the smallest first."""
    if rule.choice == "best":
        return []
    return sorted((cell for cell in cells if cell.layer == best.layer and cell.rate < best.rate
                   and _as_good(cell, best, rule.statistic)), key=lambda c: c.rate)


def _beats(best: Cell, untouched: Outcome, rule: Rule) -> bool:
    """Whether the best cell is better than the untouched model."""
    if rule.choice == "smallest_within_error":
        return not _as_good(untouched, best, rule.statistic)
    if rule.statistic == "accuracy":
        return best.right > untouched.right
    return not _as_right(untouched, best) or best.total_margin > untouched.total_margin


def _as_good(other: Outcome, best: Outcome, statistic: Statistic) -> bool:
    return _as_right(other, best) and (statistic == "accuracy" or _as_sure(other, best))


def _as_right(other: Outcome, best: Outcome) -> bool:
    """Whether no more right answers are lost than one paired standard error."""
    lost = int(np.count_nonzero(best.correct & ~other.correct))
    gained = int(np.count_nonzero(other.correct & ~best.correct))
    return lost <= gained or (lost - gained) ** 2 <= lost + gained


def _as_sure(other: Outcome, best: Outcome) -> bool:
    """The same of margins; those that are no numbers are as sure as none."""
    if not (np.isfinite(other.margin).all() and np.isfinite(best.margin).all()):
        return other.total_margin >= best.total_margin
    losses = [Fraction(a) - Fraction(b)
              for a, b in zip(best.margin.tolist(), other.margin.tolist(), strict=True)]
    lost = sum(losses)
    return lost <= 0 or lost**2 <= sum(loss**2 for loss in losses)


def _ties(cell: Cell) -> tuple[int, float, float, str]:
    copied = int(np.count_nonzero(cell.copied))
    return copied, -cell.total_margin, cell.rate, cell.ablation.digest
