"""What a run shows: progress bars on a terminal, plain log lines elsewhere, a table at its end."""

from __future__ import annotations

import time
from collections import Counter

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from prunelib.pipeline.driver import RunReport
from prunelib.pipeline.units.executor import Attempt

#: Seconds between log lines of one stage when there is no terminal to draw bars on.
_LINE_SECONDS = 15.0


class ProgressBars:
    """One bar per model and stage."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TimeRemainingColumn(), console=console,
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._failures = _Failures(self._progress.console)

    def __enter__(self) -> ProgressBars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def stage(self, model: str, stage: str, units: int, done: int) -> None:
        key = (model, stage)
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task(f"{model}  {stage}", total=0)
        task = self._progress.tasks[self._tasks[key]]
        self._progress.update(task.id, total=(task.total or 0) + units, advance=done)

    def attempt(self, attempt: Attempt) -> None:
        if attempt.again:
            return
        unit = attempt.unit
        self._progress.advance(self._tasks[unit.model.id, unit.stage])
        self._failures.show(attempt)


class ProgressLines:
    """A log line per model and stage every few seconds: readable in a job's log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._printed: dict[tuple[str, str], float] = {}
        self._failures = _Failures(console)

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def stage(self, model: str, stage: str, units: int, done: int) -> None:
        count = self._counts.setdefault((model, stage), [0, 0])
        count[0] += done
        count[1] += units
        self._line((model, stage))

    def attempt(self, attempt: Attempt) -> None:
        if attempt.again:
            return
        key = (attempt.unit.model.id, attempt.unit.stage)
        self._counts[key][0] += 1
        self._failures.show(attempt)
        done, units = self._counts[key]
        if done == units or time.monotonic() - self._printed[key] > _LINE_SECONDS:
            self._line(key)

    def _line(self, key: tuple[str, str]) -> None:
        done, units = self._counts[key]
        self._printed[key] = time.monotonic()
        stamp = time.strftime("%H:%M:%S")
        self._console.print(f"{stamp} {key[0]} {key[1]}: {done} of {units} units", markup=False,
                            highlight=False, soft_wrap=True)


def progress(console: Console) -> ProgressBars | ProgressLines:
    """Bars on a terminal, lines elsewhere."""
    return ProgressBars(console) if console.is_terminal else ProgressLines(console)


class _Failures:
    """A line for a failed unit, unless the same was said of its model and stage already."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: set[tuple[str, str, str]] = set()

    def show(self, attempt: Attempt) -> None:
        unit, reason = attempt.unit, f"{attempt.error_kind}: {_first_line(attempt)}"
        if attempt.done or (key := (unit.model.id, unit.stage, reason)) in self._said:
            return
        self._said.add(key)
        self._console.print(f"failed {unit.model.id} {unit.stage}, {unit.job.describe()}: {reason}",
                            markup=False, highlight=False, soft_wrap=True)


def _first_line(attempt: Attempt) -> str:
    return ((attempt.error_text or "").splitlines() or [""])[0]


def failures(report: RunReport) -> Table:
    """What failed for good, equal reasons on one line."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for attempt in report.failed:
        reason = f"{attempt.error_kind}: {_first_line(attempt)}"
        counts[attempt.unit.model.id, attempt.unit.stage, reason[:300]] += 1
    table = Table("model", "stage", "units", "reason", title="failed", title_justify="left",
                  title_style="bold red", box=SIMPLE_HEAD, show_edge=False)
    for (model, stage, reason), units in counts.most_common():
        table.add_row(Text(model), stage, str(units), Text(reason))
    return table
