"""Quadrature nodes that are shifted at random, prompt by prompt, so that errors average out.

One node lies in each of K equal cells of the path, at a place u of its cell in every other cell
and at 1 - u in those between, where u is drawn uniformly for each prompt. Every node is then
uniform in its cell, so the mean of the gradients at the nodes has the integral as its expectation,
whatever the integrand (a randomly shifted rule; formulas.md §1.3), and the error of a mean over
many prompts falls with their number. The two places mirror each other, so where an integrand is
nearly straight within two cells its error falls as 1 / K². Mirroring every node within its cell
doubles K and keeps the structure: levels are nested.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prunelib.identity import seed_of

#: Nodes of each level. Half of those of the first are its coarse rule.
NODES = (4, 8, 16, 32, 64, 128)

Array = NDArray[np.float64]


def shift(token_ids: Sequence[int]) -> float:
    """The place u in [0, 1) of a prompt, which its token ids decide, whoever computes it."""
    return seed_of("shifted nodes", *token_ids) / 2**64


def nodes(level: int, shifts: Sequence[float]) -> Array:
    """All nodes of a level, those of the levels before first, ``[NODES[level], prompts]``."""
    u = np.asarray(shifts, np.float64)
    found = np.stack([u / 2, 1 - u / 2])
    for _ in range(level + 1):
        found = np.concatenate([found, _mirrored(found)])
    return found


def new_nodes(level: int, shifts: Sequence[float]) -> Array:
    """The nodes that a level adds to the one before, ``[nodes, prompts]``."""
    return nodes(level, shifts)[0 if level == 0 else NODES[level - 1] :]


def _mirrored(found: Array) -> Array:
    """Every node mirrored within its cell, of as many cells as there are nodes."""
    cells = len(found)
    inside = np.minimum(np.floor(found * cells), cells - 1)
    return np.asarray((2 * inside + 1) / cells - found)


def rules(level: int) -> Array:
    """Weights of what a level adds, ``[2, nodes]``: of its mean, and of an estimate of its error.

    The estimate is half the difference between the two rules that the level's nodes consist of:
    of level 0, the first two nodes and those that mirror them. Beyond level 0 the other half is
    that of the level before, so the second row is zero. It is about the error of either half,
    larger than that of both together.
    """
    count = NODES[0] if level == 0 else NODES[level] - NODES[level - 1]
    mean = np.full(count, 1 / count)
    half = np.repeat([-1.0, 1.0], count // 2) / count if level == 0 else np.zeros(count)
    return np.stack([mean, half])
