"""Steps of a study: they ask for units, wait until these are done, and decide what follows.

A step is a generator. It yields a :class:`Batch`, is resumed when every unit of it has ended, and
decides from result files alone. So a finished batch costs one look at a folder, and a driver that
died is replaced by one that starts from the beginning.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TypeVar, cast

from prunelib.errors import PrunelibError
from prunelib.pipeline.units.unit import Unit

Found = TypeVar("Found")


@dataclass(frozen=True)
class Batch:
    """Units that a step asks for.

    Attributes:
        needed: the step reads their rows: it cannot go on if one of them fails.
        offered: reported, and read by nothing that follows: the step goes on without them.
    """

    needed: tuple[Unit, ...] = ()
    offered: tuple[Unit, ...] = ()

    @property
    def units(self) -> tuple[Unit, ...]:
        """All of them."""
        return self.needed + self.offered


def needs(units: Iterable[Unit]) -> Batch:
    """A batch without which the step cannot go on."""
    return Batch(needed=tuple(units))


def offers(units: Iterable[Unit]) -> Batch:
    """A batch that the step goes on without."""
    return Batch(offered=tuple(units))


#: A step that yields batches and returns what it found out.
Step = Generator[Batch, None, Found]


class UnitsFailed(PrunelibError):
    """Units that a step needs have failed for good; raised inside the step that asked for them."""

    def __init__(self, asked: int, failed: list[Unit]) -> None:
        """``failed`` of the ``asked`` units."""
        self.ids = {unit.id for unit in failed}
        first = failed[0]
        super().__init__(f"{len(failed)} of {asked} units that the next step needs failed, such as "
                         f"{first.stage}, {first.job.describe()} ({first.id})")


def resume(step: Step[Found], asked: Batch | None, failed: AbstractSet[str]) -> Batch:
    """Go on with a step: the next batch, or its ``StopIteration``.

    Args:
        step: the step.
        asked: what it yielded last, ``None`` before its beginning.
        failed: ids of units that failed for good. If some of them are needed,
            :class:`UnitsFailed` is raised in the step, which may know what to do without them.
    """
    missing = [unit for unit in asked.needed if unit.id in failed] if asked else []
    if asked is None or not missing:
        return next(step)
    return step.throw(UnitsFailed(len(asked.needed), missing))


def together(steps: list[Step[Found]]) -> Step[list[Found]]:
    """Several steps side by side: the units of all in one batch, until each has returned."""
    asked: dict[int, Batch | None] = dict.fromkeys(range(len(steps)))
    found: dict[int, Found] = {}
    failed: AbstractSet[str] = frozenset()
    while asked:
        for i, last in list(asked.items()):
            try:
                asked[i] = resume(steps[i], last, failed)
            except StopIteration as end:
                found[i] = cast("Found", end.value)
                del asked[i]
        batches = [batch for batch in asked.values() if batch is not None]
        if batches:
            try:
                yield Batch(tuple(unit for batch in batches for unit in batch.needed),
                            tuple(unit for batch in batches for unit in batch.offered))
                failed = frozenset()
            except UnitsFailed as error:
                failed = error.ids
    return [found[i] for i in range(len(steps))]
