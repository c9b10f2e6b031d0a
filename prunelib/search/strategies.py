"""Which cells of the grid are tried, on how many examples.

A strategy is a generator: it yields requests (several ablations of one layer on one range of
examples), receives their outcomes in the same order, and returns what it found. It does no work
itself, so whoever runs it decides what a request costs and where it is done. Work is counted in
evaluations, cells × examples; the exhaustive search makes layers × rates × examples of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pkgutil import resolve_name

import numpy as np

from prunelib.interventions.base import Intervention
from prunelib.recipe.methods import STRATEGIES
from prunelib.search.choice import Cell, Outcome, Rule, lighter

#: A cell by its layer and rate.
Place = tuple[int, float]


@dataclass(frozen=True)
class Grid:
    """What may be tried.

    Attributes:
        ablations: of every cell, by layer and rate.
        examples: how many there are at most for a cell.
        mass: layer → positive attribution mass, in any unit
            (:func:`prunelib.search.selection.positive_mass`). A random ranking is given that of the
            method it is the control of, so that both try the same layers.
        rule: how the final choice is made (:func:`prunelib.search.choice.choose`). Strategies try
            the cells that it may prefer.
    """

    ablations: Mapping[Place, Intervention]
    examples: int
    mass: Mapping[int, float]
    rule: Rule

    @property
    def layers(self) -> list[int]:
        """Layers in ascending order."""
        return sorted({layer for layer, _ in self.ablations})

    @property
    def rates(self) -> list[float]:
        """Rates in ascending order."""
        return sorted({rate for _, rate in self.ablations})


@dataclass(frozen=True)
class Request:
    """Ablations of one layer to be tried on the examples ``start`` to ``stop - 1``."""

    layer: int
    ablations: tuple[Intervention, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Found:
    """What a strategy ends with.

    Attributes:
        cells: every cell that was tried, on as many examples as it was tried on.
    """

    cells: tuple[Cell, ...]

    @property
    def candidates(self) -> list[Cell]:
        """The cells that were tried on all examples, from which one is chosen."""
        examples = max(len(cell.correct) for cell in self.cells)
        return [cell for cell in self.cells if len(cell.correct) == examples]

    @property
    def evaluations(self) -> int:
        """Cells × examples that were evaluated; cells that are equal count once."""
        return sum({cell.ablation.digest: len(cell.correct) for cell in self.cells}.values())


Asking = Generator[list[Request], Sequence[Outcome], None]
Strategy = Callable[[Grid], Generator[list[Request], Sequence[Outcome], Found]]


@dataclass
class _Tried:
    """The cells that were tried so far, each on its first examples.

    Several cells may be the same intervention, such as rates of a narrow layer: they share their
    outcomes.
    """

    grid: Grid
    places: set[Place] = field(default_factory=set)
    #: By the ablation's digest, each field ``[examples]``.
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def extend(self, places: Sequence[Place], stop: int) -> Asking:
        """Try ``places`` on what is missing of the first ``stop`` examples."""
        self.places.update(places)
        groups: dict[tuple[int, int], dict[str, Intervention]] = {}
        asked: set[str] = set()
        for place in sorted(places):
            ablation = self.grid.ablations[place]
            known = self.outcomes.get(ablation.digest)
            start = 0 if known is None else len(known.correct)
            if start < stop and ablation.digest not in asked:
                asked.add(ablation.digest)
                groups.setdefault((place[0], start), {})[ablation.digest] = ablation
        requests = [Request(layer, tuple(ablations.values()), start, stop)
                    for (layer, start), ablations in groups.items()]
        if requests:
            outcomes = yield requests
            for request, found in zip(requests, outcomes, strict=True):
                for i, ablation in enumerate(request.ablations):
                    self._add(ablation.digest,
                              Outcome(found.correct[i], found.copied[i], found.margin[i]))

    def _add(self, digest: str, new: Outcome) -> None:
        old = self.outcomes.get(digest)
        self.outcomes[digest] = new if old is None else Outcome(
            np.concatenate([old.correct, new.correct]), np.concatenate([old.copied, new.copied]),
            np.concatenate([old.margin, new.margin]))

    def cells(self, places: Iterable[Place]) -> list[Cell]:
        """What is known of ``places``."""
        found = []
        for place in places:
            ablation = self.grid.ablations[place]
            known = self.outcomes[ablation.digest]
            found.append(Cell(known.correct, known.copied, known.margin, *place, ablation))
        return found

    def ranked(self, places: Sequence[Place]) -> list[Cell]:
        """Cells tried on the same examples, in the order in which they deserve more of these.

        First the leader, by its mean margin. All cells saw the same examples, so the means differ
        by the mean of the paired difference, and so do their differences to the untouched model;
        accuracy would tie on the few examples that are to decide. Then the smaller rates of its
        layer that the rule prefers, smallest first: margins alone lead to rates larger than
        needed. Then the others by their mean margins, ties as in the choice.
        """
        cells = sorted(self.cells(places),
                       key=lambda c: (-c.total_margin, c.rate, c.ablation.digest))
        small = lighter(cells, cells[0], self.grid.rule)
        first = {(c.layer, c.rate) for c in (cells[0], *small)}
        return [cells[0], *small, *(c for c in cells if (c.layer, c.rate) not in first)]

    def found(self) -> Found:
        """Everything that was tried."""
        return Found(tuple(self.cells(sorted(self.places))))


def exhaustive(grid: Grid) -> Generator[list[Request], Sequence[Outcome], Found]:
    """Every cell on every example."""
    tried = _Tried(grid)
    yield from tried.extend(list(grid.ablations), grid.examples)
    return tried.found()


def coarse_to_fine(grid: Grid) -> Generator[list[Request], Sequence[Outcome], Found]:
    """Every second rate of every layer on a fifth of the examples, then around the best on all.

    The best is the leading cell, or the smallest rate of its layer that is as good; its two
    neighbours are added. Layers are not thinned out: neighbours of the layer where copying sits
    need not show it.
    """
    tried = _Tried(grid)
    rates = grid.rates
    coarse = [(layer, rate) for layer in grid.layers for rate in rates[::2]]
    yield from tried.extend(coarse, -(-grid.examples // 5))
    leader = tried.ranked(coarse)[0]
    best = [*lighter(tried.cells(coarse), leader, grid.rule), leader][0]
    middle = rates.index(best.rate)
    around = {leader.rate, *rates[max(0, middle - 1) : middle + 2]}
    yield from tried.extend([(leader.layer, rate) for rate in around], grid.examples)
    return tried.found()


def attribution_mass(grid: Grid) -> Generator[list[Request], Sequence[Outcome], Found]:
    """Every rate on every example, in the layers that hold half of the positive attribution.

    They are the fewest layers whose mass is at least half of that of all layers.
    """
    tried = _Tried(grid)
    order = sorted(grid.layers, key=lambda layer: (-grid.mass[layer], layer))
    held = np.cumsum([grid.mass[layer] for layer in order])
    few = order[: 1 + int(np.searchsorted(held, held[-1] / 2))]
    yield from tried.extend([place for place in grid.ablations if place[0] in few], grid.examples)
    return tried.found()


def successive_halving(grid: Grid) -> Generator[list[Request], Sequence[Outcome], Found]:
    """All cells on a sixteenth of the examples, then the better half on twice as many, until all.

    Some 3/16 of the exhaustive search. Better is who comes first in :meth:`_Tried.ranked`; two
    stay at least, a leader and a smaller rate.
    """
    tried = _Tried(grid)
    left = list(grid.ablations)
    stop = -(-grid.examples // 16)
    yield from tried.extend(left, stop)
    while stop < grid.examples:
        better = tried.ranked(left)[: max(2, -(-len(left) // 2))]
        left = [(cell.layer, cell.rate) for cell in better]
        stop = min(2 * stop, grid.examples)
        yield from tried.extend(left, stop)
    return tried.found()


def load_strategy(name: str) -> Strategy:
    """The strategy of this name in the recipe."""
    found: Strategy = resolve_name(STRATEGIES[name])
    return found


def search(strategy: Strategy, grid: Grid, evaluate: Callable[[Request], Outcome]) -> Found:
    """Run a strategy in this process, one request after the other."""
    asking = strategy(grid)
    try:
        requests = next(asking)
        while True:
            requests = asking.send([evaluate(request) for request in requests])
    except StopIteration as stop:
        found: Found = stop.value
        return found
