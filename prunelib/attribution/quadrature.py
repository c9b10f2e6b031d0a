"""Nested Clenshaw–Curtis quadrature on [0, 1]: every level reuses the nodes of those before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Nodes of each level. Both ends belong to every level, so F(0) and F(1), which the
#: completeness gap needs, come for free.
NODES = (9, 17, 33, 65, 129, 257)


def nodes(level: int) -> NDArray[np.float64]:
    """All nodes of a level, ascending, ``[NODES[level]]``."""
    n = NODES[level] - 1
    return (1 - np.cos(np.pi * np.arange(n + 1) / n)) / 2


def new_nodes(level: int) -> NDArray[np.float64]:
    """The nodes that a level adds to the one before, ascending."""
    return nodes(level) if level == 0 else nodes(level)[1::2]


def _rule(intervals: int) -> NDArray[np.float64]:
    """Clenshaw–Curtis weights of ``intervals + 1`` nodes: the cosine series, integrated."""
    k = np.arange(intervals + 1)
    series = np.zeros(intervals + 1)
    for j in range(0, intervals + 1, 2):
        half = 0.5 if j in (0, intervals) else 1.0
        series += half * 2 / (1 - j * j) * np.cos(j * k * np.pi / intervals)
    ends = np.where((k == 0) | (k == intervals), 0.5, 1.0)
    return ends * series / intervals


def weights(level: int) -> NDArray[np.float64]:
    """Weights of :func:`nodes` for the integral over [0, 1], ``[NODES[level]]``.

    Exact for polynomials of degree below the number of nodes.
    """
    return _rule(NODES[level] - 1)


def coarse_weights(level: int) -> NDArray[np.float64]:
    """Weights of the rule with half the intervals on the same :func:`nodes`, zero in between.

    The difference to :func:`weights` estimates the error without another evaluation.
    """
    coarse = np.zeros(NODES[level])
    coarse[::2] = _rule((NODES[level] - 1) // 2)
    return coarse


def ascending(level: int) -> NDArray[np.intp]:
    """Order that sorts the nodes of levels 0, 1, … ``level``, in order of computation."""
    return np.argsort(np.concatenate([new_nodes(i) for i in range(level + 1)]))
