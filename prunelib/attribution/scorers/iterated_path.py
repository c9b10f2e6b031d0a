"""Iterated path attribution: switch off the top neurons, attribute again, then share the credit.

Integrated gradients in one shot fail where neurons stand in for each other: with all of them on,
and along most of the path, none makes a difference. Here a few neurons are switched off in every
round, by the gradient along the path that scales the layer from 0 to its present state; with some
gone, the others show. What the rounds switched off is a guess with too many neurons in it. In the
end the credit is shared among them by integrated gradients along the straight path from the state
they were switched off in to the model's normal operation:

    score_j = ∫ ∂F/∂g_j (α) dα,   g_j = α for the neurons switched off, 1 for all others

so scores add up to what switching all of them off changes (completeness, as for formulas.md §1.3),
and neurons that were never switched off score 0.

Cost: ``ROUNDS`` + 9 forward and backward passes of each prompt; the layers below are run once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prunelib.attribution import quadrature
from prunelib.attribution.gates import Array, Gradient, gated
from prunelib.attribution.integrated_gradients import PATH_ROWS, Path
from prunelib.attribution.objectives.base import Objective
from prunelib.models import Loaded
from prunelib.tasks.tokenization import Encoded

ROUNDS = 16
#: Share of the layer that the rounds switch off: no smaller than the share one hopes to find.
SHARE = 0.125
#: Fractional part of the golden ratio: multiples of it never fall together.
_GOLDEN = (math.sqrt(5) - 1) / 2


def iterated_path(
    loaded: Loaded, path: Path, prompts: Sequence[Encoded], objective: Objective,
    rows: int = PATH_ROWS,
) -> Array:
    """Scores of every layer, ``[layers, neurons]``."""
    return np.stack([iterated_path_scores(loaded, layer, prompts, objective)
                     for layer in path.layers])


def iterated_path_scores(
    loaded: Loaded,
    layer: int,
    prompts: Sequence[Encoded],
    objective: Objective,
    rounds: int = ROUNDS,
    share: float = SHARE,
) -> Array:
    """Scores of a layer's neurons, ``[neurons]``: the share of each in what raises the objective.

    Args:
        loaded: the model.
        layer: whose neurons.
        prompts: ``[prompts]``; a few dozen are enough if what they copy varies.
        objective: high where the model copies.
        rounds: how often a batch of neurons is switched off.
        share: of the layer's neurons, switched off in all rounds together.
    """
    with gated(loaded, layer, prompts, objective) as gradient:
        off = _switched_off(gradient, loaded.info.width, len(prompts), rounds, share)
        found = np.zeros(loaded.info.width)
        for alpha, weight in zip(quadrature.nodes(0), quadrature.weights(0), strict=True):
            found += weight * gradient(np.where(off, alpha, 1.0))[1]
    return np.where(off, found, 0.0)


def _switched_off(
    gradient: Gradient, width: int, prompts: int, rounds: int, share: float
) -> NDArray[np.bool_]:
    """Which neurons the rounds switch off, ``[neurons]``.

    One pass of every prompt estimates the integral over the path: prompt i has its own α, and
    from round to round the points move on.
    """
    off = np.zeros(width, dtype=bool)
    for i in range(rounds):
        alphas = ((np.arange(prompts) + 0.5) / prompts + i * _GOLDEN) % 1
        slope = gradient(alphas[:, None] * ~off)[1]
        batch = math.ceil(width * share * (i + 1) / rounds) - int(off.sum())
        off[np.argsort(np.where(off, np.inf, -slope), kind="stable")[:batch]] = True
    return off
