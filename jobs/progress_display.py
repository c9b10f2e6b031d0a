"""What a run shows: progress bars on a terminal, plain log lines elsewhere, a table at its end."""

from __future__ import annotations

from collections import Counter
from functools import partial

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from prunelib.pipeline.driver import RunReport
from prunelib.pipeline.reporting import Counts, Failures, Lines, first_line
from prunelib.pipeline.units.executor import Attempt


class ProgressBars:
    """One bar per model and stage."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[units]}"),
            TimeElapsedColumn(), TimeRemainingColumn(), console=console,
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._counts = Counts()
        self._failures = Failures(self._print)

    def __enter__(self) -> ProgressBars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def expected(self, model: str, stage: str, least: int, most: int) -> None:
        self._counts.expected(model, stage, least, most)

    def stage(self, model: str, stage: str, units: int, done: int) -> None:
        self._counts.stage(model, stage, units, done)
        self._draw(model, stage)

    def attempt(self, attempt: Attempt) -> None:
        if self._counts.attempt(attempt):
            self._draw(attempt.unit.model.id, attempt.unit.stage)
            self._failures.show(attempt)

    def note(self, text: str) -> None:
        self._print(text)

    def _draw(self, model: str, stage: str) -> None:
        count = self._counts.of(model, stage)
        units = f"{count.done} of {count.text}"
        if (model, stage) not in self._tasks:
            self._tasks[model, stage] = self._progress.add_task(
                escape(f"{model}  {stage}"), total=count.total, units=units)
        self._progress.update(self._tasks[model, stage], total=count.total, completed=count.done,
                              units=units)

    def _print(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)


def progress(console: Console) -> ProgressBars | Lines:
    """Bars on a terminal, lines elsewhere."""
    if console.is_terminal:
        return ProgressBars(console)
    return Lines(partial(console.print, markup=False, highlight=False, soft_wrap=True))


def failures(report: RunReport) -> Table:
    """What failed for good, equal reasons on one line."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for attempt in report.failed:
        reason = f"{attempt.error_kind}: {first_line(attempt)}"
        counts[attempt.unit.model.id, attempt.unit.stage, reason[:300]] += 1
    table = Table("model", "stage", "units", "reason", title="failed", title_justify="left",
                  title_style="bold red", box=SIMPLE_HEAD, show_edge=False)
    for (model, stage, reason), units in counts.most_common():
        table.add_row(Text(model), stage, str(units), Text(reason))
    return table
