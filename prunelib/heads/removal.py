"""Orders in which heads and FFNs are removed, least important first (formulas.md §3.4)."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunelib.components import Component, Site
from prunelib.heads import ranking
from prunelib.identity import seed_of
from prunelib.interventions.ablation import Ablation
from prunelib.recipe.heads import RemovalSpec

#: A task at a number of shots.
Setting = tuple[str, int]
#: Importance of every component of a kind in every setting, ``[layers, components]`` each.
Scores = dict[Setting, NDArray[np.float64]]


@dataclass(frozen=True)
class Removal:
    """A share of heads and FFNs that is removed, and by whose order: a row of ``removals``."""

    removed_heads: tuple[ranking.Place, ...]
    removed_ffns: tuple[ranking.Place, ...]
    heads: float
    ffns: float
    order: str
    task: str | None
    shots: int | None
    ranked_by: str | None
    seed: int | None = None

    @functools.cached_property
    def ablation(self) -> Ablation:
        """The components that are off."""
        return Ablation.of([*(Component(layer, "head", index)
                              for layer, index in self.removed_heads),
                            *(Component(layer, "ffn", index)
                              for layer, index in self.removed_ffns)])


@dataclass(frozen=True)
class _Order:
    """Components of one kind, least important first, and where the order holds."""

    places: tuple[ranking.Place, ...]
    task: str | None = None
    shots: int | None = None
    ranked_by: str | None = None
    seed: int | None = None


def removals(spec: RemovalSpec, scores: Mapping[Site, Scores]) -> Iterator[Removal]:
    """Every share of every order, heads and FFNs apart; then every pair of shares at once."""
    own: dict[Site, dict[Setting, _Order]] = {}
    for site, of_site in scores.items():
        for name in spec.orders if of_site else ():
            for found in _orders(name, of_site, spec.random):
                if name == "own":
                    own.setdefault(site, {})[found.task or "", found.shots or 0] = found
                for fraction in spec.fractions:
                    share = tuple(ranking.removed(found.places, fraction))
                    heads, ffns = ((share, ()) if site == "head" else ((), share))
                    yield Removal(
                        heads, ffns, fraction * (site == "head"), fraction * (site == "ffn"),
                        name, found.task, found.shots, found.ranked_by, found.seed)
    if spec.joint and len(own) == 2:
        for setting, order in own["head"].items():
            for of_heads, of_ffns in itertools.product(spec.fractions, spec.fractions):
                yield Removal(
                    tuple(ranking.removed(order.places, of_heads)),
                    tuple(ranking.removed(own["ffn"][setting].places, of_ffns)),
                    of_heads, of_ffns, "own", order.task, order.shots, order.task)


def _orders(name: str, scores: Scores, seeds: int) -> Iterator[_Order]:
    """The orders of one kind of component that an order's name means (formulas.md §3.4)."""
    layers, width = next(iter(scores.values())).shape
    if name == "random":
        for seed in range(seeds):
            places = [(layer, index) for layer in range(layers) for index in range(width)]
            random.Random(seed_of("removal", layers, width, seed)).shuffle(places)  # noqa: S311
            yield _Order(tuple(places), seed=seed)
    elif name == "aggregate":
        for shots in dict.fromkeys(shots for _, shots in scores):
            mean = ranking.aggregate([s for (_, k), s in scores.items() if k == shots])
            yield _Order(tuple(ranking.order(mean)), shots=shots)
    else:
        for task, shots in scores:
            by = task if name == "own" else _relative(name, task, shots, scores)
            if by is not None:
                yield _Order(tuple(ranking.order(scores[by, shots])), task, shots, by)


def _relative(name: str, task: str, shots: int, scores: Scores) -> str | None:
    """The other task whose ranking is most (``closest``) or least (``farthest``) like a task's."""
    alike = {other: ranking.rank_correlation(scores[task, shots], values).value
             for (other, k), values in scores.items() if k == shots and other != task}
    known = {other: value for other, value in alike.items() if not np.isnan(value)}
    if not known:
        return None
    return (max if name == "closest" else min)(known, key=lambda other: known[other])
