"""What units and starts have taken, and whether one more worker process is worth its start."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from statistics import fmean

from prunelib.vocabulary import Stage


class Durations:
    """Seconds of units by kind of worker and stage, in proportion to their costs.

    A process's first unit is kept apart: a model is loaded then, or an engine starts.
    """

    def __init__(self) -> None:
        self._up: dict[Hashable, list[float]] = defaultdict(list)
        self._first: dict[Hashable, list[tuple[Stage, float, float]]] = defaultdict(list)
        #: (kind, stage) → cost and seconds, summed up.
        self._later: dict[tuple[Hashable, Stage], list[float]] = defaultdict(lambda: [0.0, 0.0])

    def up(self, kind: Hashable, seconds: float) -> None:
        """A process was up after so long."""
        self._up[kind].append(seconds)

    def done(self, kind: Hashable, stage: Stage, cost: float, seconds: float, first: bool) -> None:
        """A unit took so long; it was the ``first`` of its process, or not."""
        if first:
            self._first[kind].append((stage, cost, seconds))
        else:
            known = self._later[kind, stage]
            known[0] += cost
            known[1] += seconds

    def start(self, kind: Hashable) -> float | None:
        """Seconds of a start, with what a first unit takes longer; ``None``: unknown."""
        longer = [max(0.0, seconds - expected) for stage, cost, seconds in self._first[kind]
                  if (expected := self.expected(kind, {stage: cost})) is not None]
        return fmean(longer) + fmean(self._up[kind]) if longer and self._up[kind] else None

    def expected(self, kind: Hashable, costs: Mapping[Stage, float]) -> float | None:
        """Seconds of units with such costs, stage by stage, by one worker; ``None``: unknown."""
        total = 0.0
        for stage, cost in costs.items():
            known, seconds = self._later.get((kind, stage), (0.0, 0.0))
            if cost > 0 and known <= 0:
                return None
            total += seconds * cost / known if cost > 0 else 0.0
        return total

    def worth_a_start(self, kind: Hashable, costs: Mapping[Stage, float], workers: int) -> bool:
        """Whether those who are there would be busy for longer than one more takes to start."""
        start, left = self.start(kind), self.expected(kind, costs)
        return not workers or start is None or left is None or left / workers > start
