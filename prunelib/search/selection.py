"""Rankings of a layer's neurons, and the nested sets that rates cut from them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prunelib.components import Site
from prunelib.identity import seed_of
from prunelib.interventions.ablation import Ablation


def by_score(scores: NDArray[np.float64]) -> tuple[int, ...]:
    """Neurons of a layer, highest score first; ties by index."""
    return tuple(int(i) for i in np.argsort(-scores, kind="stable"))


def in_order(scores: NDArray[np.float64], rank: str) -> tuple[int, ...]:
    """Neurons of a layer in the order in which ``rank`` (a recipe's word) switches them off."""
    return by_score({"top": scores, "bottom": -scores, "absolute": np.abs(scores)}[rank])


def positive_mass(scores: NDArray[np.float64]) -> float:
    """Sum of a layer's positive scores, in units of the objective."""
    return float(scores.clip(min=0).sum())


def random_order(
    width: int, layer: int, seed: int, purpose: str = "random ranking"
) -> tuple[int, ...]:
    """A seeded random order of a layer's neurons: the control, or what else ``purpose`` names."""
    order = list(range(width))
    random.Random(seed_of(purpose, layer, seed)).shuffle(order)  # noqa: S311
    return tuple(order)


def count_at(rate: float, width: int) -> int:
    """How many of ``width`` neurons a rate switches off: rounded, at least one."""
    return max(1, round(rate * width))


def cut(
    layer: int, order: Sequence[int], rate: float, width: int, site: Site = "mlp_hidden"
) -> Ablation:
    """The ablation of the first neurons of an order. Sets of growing rates are nested."""
    return Ablation.of_layer(layer, order[: count_at(rate, width)], site)
