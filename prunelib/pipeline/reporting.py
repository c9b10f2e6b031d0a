"""Who is told how a run goes. Any object with these methods is a reporter."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from prunelib.pipeline.units.executor import Attempt

#: Seconds between two lines of one stage.
_SECONDS = 15.0


class Reporter(Protocol):
    """Who is told how a run goes (progress bars, log lines)."""

    def expected(self, model: str, stage: str, least: int, most: int) -> None:
        """A stage of a model will have so many units; called once, before any stage begins."""
        ...

    def stage(self, model: str, stage: str, units: int, done: int) -> None:
        """A part of a stage begins: ``done`` of its ``units`` were there already."""
        ...

    def attempt(self, attempt: Attempt) -> None:
        """An attempt at a unit ended."""
        ...

    def note(self, text: str) -> None:
        """Something that takes a while begins, or there is something that a user should know."""
        ...


class Silent:
    """Tells nobody."""

    def expected(self, model: str, stage: str, least: int, most: int) -> None: ...

    def stage(self, model: str, stage: str, units: int, done: int) -> None: ...

    def attempt(self, attempt: Attempt) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass
class StageCount:
    """Units of one stage of a model: done, begun, and how many there will be."""

    done: int = 0
    begun: int = 0
    least: int = 0
    most: int = 0

    @property
    def total(self) -> int:
        """How many there will be at most, which does not grow while the stage runs."""
        return max(self.begun, self.most)

    @property
    def text(self) -> str:
        """The total; ``~`` where it depends on what is found."""
        known = self.least == self.most or self.begun >= self.most
        return f"{'' if known else '~'}{self.total}"


class Counts:
    """The units of every stage of every model, as a reporter hears of them."""

    def __init__(self) -> None:
        self.stages: dict[tuple[str, str], StageCount] = {}

    def of(self, model: str, stage: str) -> StageCount:
        """The count of one stage."""
        return self.stages.setdefault((model, stage), StageCount())

    def expected(self, model: str, stage: str, least: int, most: int) -> None:
        """As :class:`Reporter` has it."""
        count = self.of(model, stage)
        count.least, count.most = least, most

    def stage(self, model: str, stage: str, units: int, done: int) -> None:
        """As :class:`Reporter` has it."""
        count = self.of(model, stage)
        count.begun += units
        count.done += done

    def attempt(self, attempt: Attempt) -> bool:
        """As :class:`Reporter` has it; whether its unit is over."""
        if not attempt.again:
            self.of(attempt.unit.model.id, attempt.unit.stage).done += 1
        return not attempt.again


class Failures:
    """A line for a failed unit, unless the same was said of its model and stage already."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._said: set[tuple[str, str, str]] = set()

    def show(self, attempt: Attempt) -> None:
        """Say it of an attempt that failed for good."""
        unit, reason = attempt.unit, f"{attempt.error_kind}: {first_line(attempt)}"
        if attempt.done or (key := (unit.model.id, unit.stage, reason)) in self._said:
            return
        self._said.add(key)
        self._write(f"failed {unit.model.id} {unit.stage}, {unit.job.describe()}: {reason}")


def first_line(attempt: Attempt) -> str:
    """The first line of what went wrong."""
    return ((attempt.error_text or "").splitlines() or [""])[0]


class Lines:
    """A line per model and stage every few seconds: readable in a log and in a notebook.

    Args:
        write: what a line is given to; by default it is printed.
    """

    def __init__(self, write: Callable[[str], None] = print) -> None:
        self._write = write
        self._counts = Counts()
        self._written: dict[tuple[str, str], float] = {}
        self._failures = Failures(write)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def expected(self, model: str, stage: str, least: int, most: int) -> None:
        """As :class:`Reporter` has it."""
        self._counts.expected(model, stage, least, most)

    def stage(self, model: str, stage: str, units: int, done: int) -> None:
        """As :class:`Reporter` has it."""
        self._counts.stage(model, stage, units, done)
        self._line(model, stage)

    def attempt(self, attempt: Attempt) -> None:
        """As :class:`Reporter` has it."""
        if not self._counts.attempt(attempt):
            return
        self._failures.show(attempt)
        key = (attempt.unit.model.id, attempt.unit.stage)
        count = self._counts.of(*key)
        late = time.monotonic() - self._written.get(key, 0.0) > _SECONDS
        if count.done == count.begun or late:
            self._line(*key)

    def note(self, text: str) -> None:
        """As :class:`Reporter` has it."""
        self._write(f"{time.strftime('%H:%M:%S')} {text}")

    def _line(self, model: str, stage: str) -> None:
        self._written[model, stage] = time.monotonic()
        count = self._counts.of(model, stage)
        self.note(f"{model} {stage}: {count.done} of {count.text} units")


def default_reporter() -> Reporter:
    """Lines in a notebook, where nothing else would be seen for hours; else silence."""
    return Lines() if "ipykernel" in sys.modules else Silent()
