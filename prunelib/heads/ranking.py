"""Rankings of heads and FFNs over a whole model: what is removed first, and how tasks agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prunelib.errors import UnitError, UserError

Array = NDArray[np.float64]
#: Layer and index of a component.
Place = tuple[int, int]


@dataclass(frozen=True)
class Correlation:
    """Agreement of two rankings.

    Attributes:
        value: between -1 and 1; nan if one of the rankings has no order.
        low: lower end of the 95% interval; nan where none is known.
        high: upper end.
        p: two-sided p-value against no association.
    """

    value: float
    low: float
    high: float
    p: float


def order(scores: Array) -> list[Place]:
    """All components, least important first; ties by layer and index.

    Args:
        scores: importance, ``[layers, components]``, or ``[layers]`` of FFNs.

    Raises:
        UnitError: a score is not finite.
    """
    if not np.isfinite(scores).all():
        raise UnitError("an importance score is not finite")
    width = scores.shape[1] if scores.ndim == 2 else 1
    return [divmod(int(i), width) for i in np.argsort(scores, axis=None, kind="stable")]


def removed(order: Sequence[Place], fraction: float) -> list[Place]:
    """The first ⌊fraction × count⌋ components of an order (formulas.md §3.2).

    Sets of growing fractions of one order are nested: nothing is scored again. Raises
    :class:`UserError` unless 0 <= fraction <= 1.
    """
    return list(order[: removed_count(fraction, len(order))])


def rank_correlation(
    a: Array, b: Array, variant: Literal["ranks", "argsort"] = "ranks"
) -> Correlation:
    """Agreement of two scores of the same components.

    ``ranks`` is Spearman's correlation, ties with their mean rank. Its interval is Fisher's, with
    the variance (1 + value² / 2) / (n - 3) of Bonett and Wright (2000). ``argsort`` correlates
    instead the two lists of component numbers in order of importance, as the released code does
    (formulas.md §3.2; §6, row 11): another number, which has no interval, because
    the pairs that it correlates do not belong to one component each.

    Raises :class:`UserError` if the shapes differ.
    """
    from scipy.stats import spearmanr

    _check_shapes(a, b)
    x, y = a.ravel(), b.ravel()
    if variant == "argsort":
        x, y = (np.argsort(scores, kind="stable").astype(float) for scores in (x, y))
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(math.nan, math.nan, math.nan, math.nan)
    found = spearmanr(x, y)
    value = float(np.clip(found.statistic, -1, 1))
    low, high = _interval(value, len(x)) if variant == "ranks" else (math.nan, math.nan)
    return Correlation(value, low, high, float(found.pvalue))


def overlap(a: Array, b: Array, share: float = 0.3) -> float:
    """Share of the most important components of ``a`` that are among those of ``b``.

    Of either ⌊share × count⌋ count as most important (the paper's figure is for 30%, formulas.md
    §3.4; how it rounds is not known). Rankings without any relation have ``share`` on average.
    nan if the share is less than one component.

    Raises :class:`UserError` if the shapes differ, or unless 0 <= share <= 1.
    """
    _check_shapes(a, b)
    count = removed_count(share, a.size)
    if count == 0:
        return math.nan
    return len(set(order(a)[-count:]) & set(order(b)[-count:])) / count


def aggregate(tasks: Sequence[Array]) -> Array:
    """Mean over tasks of their scores, all of one shape, every task alike (Eq. 10, §3.1)."""
    mean: Array = np.mean(np.stack(tasks), axis=0)
    return mean


def removed_count(fraction: float, count: int) -> int:
    """⌊fraction × count⌋ of the decimal fraction that is meant: 0.29 of 100 is 29."""
    if not 0 <= fraction <= 1:
        raise UserError(f"a fraction of components is between 0 and 1, not {fraction}")
    return int(Decimal(str(fraction)) * count)


def _check_shapes(a: Array, b: Array) -> None:
    if a.shape != b.shape:
        raise UserError(f"scores of {a.shape} and {b.shape} components cannot be compared: "
                        "use two of one model")


def _interval(value: float, n: int) -> tuple[float, float]:
    """95% interval of Spearman's correlation of ``n`` pairs."""
    if n <= 3:
        return math.nan, math.nan
    if abs(value) == 1:
        return value, value
    half = NormalDist().inv_cdf(0.975) * math.sqrt((1 + value * value / 2) / (n - 3))
    return math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half)
