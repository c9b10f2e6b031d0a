"""The rules that choose one cell of a grid, or none.

Comparisons on the examples of one proxy are exact: of whole numbers of examples, or of sums of
margins that are rounded once (``math.fsum``) or not at all (fractions). No tolerance is involved,
and neither the order of cells nor the number of examples can tip a tie.
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

from prunelib.interventions.base import Intervention

#: Which of the cells is taken: the best one, or the smallest rate that is about as good.
Choice = Literal["best", "smallest_within_error", "shared"]
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
    """One (layer, rate) of a grid, with its outcome on the same examples in the same order.

    Of a steering, ``layer`` is the layer or the number of components, ``rate`` the strength.
    """

    layer: int
    rate: float
    ablation: Intervention


def choose(cells: Sequence[Cell], rule: Rule, untouched: Outcome | None = None,
           proxies: NDArray[np.intp] | None = None) -> Cell | None:
    """The cell that is chosen, or ``None``: switch nothing off.

    ``shared`` is :func:`shared_gain`; ``proxies`` says which one each example is of.

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
    if rule.choice == "shared" and untouched is not None:
        whose = np.zeros(len(untouched.correct), np.intp) if proxies is None else proxies
        return _most_shared(cells, rule, untouched, whose)
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


@dataclass(frozen=True)
class Gain:
    """What a cell gains against the untouched model, over several proxies.

    Attributes:
        mean: over proxies of their mean gain.
        error: its standard error over examples, or over proxies where that is larger: they stand
            for tasks that no search sees.
        worst: the smallest gain of a proxy, in its own standard errors.
    """

    mean: float
    error: float
    worst: float

    @property
    def certain(self) -> float:
        """What the gain is at least, but for two standard errors."""
        return self.mean - 2 * self.error


def shared_gain(cell: Outcome, untouched: Outcome, proxies: NDArray[np.intp],
                statistic: Statistic) -> Gain:
    """The paired gain of a cell, every proxy with the same weight.

    Of ``accuracy``: right answers. Of ``margin``: half of it right answers, half how sure the gold
    answer is against what could be copied, 1 / (1 + exp(-margin)): it counts for something that an
    answer comes nearer, and never more than that it is right.
    """
    differences = cell.correct.astype(float) - untouched.correct
    if statistic == "margin":
        sure = [1 / (1 + np.exp(-np.nan_to_num(o.margin, nan=-np.inf).clip(-50, 50)))
                for o in (cell, untouched)]
        differences = (differences + sure[0] - sure[1]) / 2
    parts = [differences[proxies == proxy] for proxy in np.unique(proxies)]
    means = np.array([part.mean() for part in parts])
    errors = np.array([part.std(ddof=1) / np.sqrt(len(part)) if len(part) > 1 else np.inf
                       for part in parts])
    with np.errstate(invalid="ignore", divide="ignore"):
        worst = np.where(means == 0, 0.0, means / errors).min()
    within = float(np.sqrt((errors**2).sum())) / len(parts)
    between = float(means.std(ddof=1)) / len(parts) ** 0.5 if len(parts) > 1 else 0.0
    return Gain(float(means.mean()), max(within, between), float(worst))


def _most_shared(cells: Sequence[Cell], rule: Rule, untouched: Outcome,
                 proxies: NDArray[np.intp]) -> Cell | None:
    """The cell whose gain is most certain, of those under which no proxy loses by its error.

    Nothing is switched off where no gain is certain; with ``nothing: excluded`` some cell always
    is, whatever it loses.
    """
    gains = {cell.ablation.digest: shared_gain(cell, untouched, proxies, rule.statistic)
             for cell in cells}
    fit = [c for c in cells if gains[c.ablation.digest].worst >= -1
           and gains[c.ablation.digest].certain > 0]
    if rule.nothing == "excluded":
        fit = fit or list(cells)
    return min(fit, key=lambda c: (-gains[c.ablation.digest].certain, *_ties(c)), default=None)


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
