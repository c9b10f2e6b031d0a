"""How a run's progress is drawn: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from prunelib.errors import UserError
from prunelib.pipeline.progress import RunProgress, StageProgress, read_progress
from prunelib.results.storage.files import passing
from prunelib.results.storage.store import NoResultsError, Store

#: Seconds between looks at the result files.
_SECONDS = 5.0
_UNKNOWN = "unknown"


def watch_run(results: str, run: str | None, console: Console, seconds: float = _SECONDS) -> int:
    """Show a run until it ends; the exit code (0, or 1 if it ended in any way but done)."""
    show = _redraw if console.is_terminal else _print
    last = show(_looks(results, run, seconds), console)
    return 0 if isinstance(last, RunProgress) and last.status == "done" else 1


#: What a look at the files finds: progress, or why there is nothing to see at the moment.
_Look = RunProgress | str


def _looks(results: str, run: str | None, seconds: float) -> Iterator[_Look]:
    """A look every few seconds until the run ends.

    A run that was just submitted has no files yet, and a store may be out of reach for a while:
    neither ends watching. What waiting does not change is raised as a :class:`UserError`.
    """
    store: Store | None = None
    while True:
        try:
            store = store or Store.open(results, create=False)
            look: _Look = read_progress(store, run)
        except NoResultsError as error:
            look = f"{error}; waiting"
        except UserError as error:
            if not (isinstance(error.__cause__, OSError) and passing(error.__cause__)):
                raise
            look = f"{error}; waiting"
        yield look
        if isinstance(look, RunProgress) and look.ended:
            return
        time.sleep(seconds)


def _redraw(looks: Iterator[_Look], console: Console) -> _Look:
    look: _Look = ""
    with Live(console=console, auto_refresh=False) as live:
        for look in looks:
            live.update(Text(look) if isinstance(look, str) else draw(look), refresh=True)
    return look


def _print(looks: Iterator[_Look], console: Console) -> _Look:
    """A line for every stage whose counts have changed, and for every change of the run."""
    look: _Look = ""
    printed: set[str] = set()
    for look in looks:
        lines = [look] if isinstance(look, str) else [
            *(line(stage) for stage in look.stages if stage.done or stage.failed),
            *[damaged(look)] * bool(look.damaged), headline(look)]
        stamp = time.strftime("%H:%M:%S")
        for text in lines:
            # Rates and times change with every look; they are no news by themselves.
            if (news := text.partition("; ")[0]) not in printed:
                printed.add(news)
                console.print(f"{stamp} {text}", markup=False, highlight=False, soft_wrap=True)
    return look


def headline(progress: RunProgress) -> str:
    """One line on the whole run."""
    run = progress.run
    if progress.silent_since:
        return (f"{run}: silent since {clock(progress.silent_since)}: submit or run it again to "
                "resume")
    if progress.ended:
        end = f" at {clock(progress.finished)}" if progress.finished else ""
        return f"{run}: {progress.status}{end}"
    return (f"{run}: running since {clock(progress.started)}; time left: "
            f"{duration(progress.seconds_left)}")


def damaged(progress: RunProgress) -> str:
    """One line on damaged files."""
    return f"{progress.damaged} damaged files do not count: prunelib verify lists them"


def line(stage: StageProgress) -> str:
    """One line on one stage of a model: what changes by itself comes after the semicolon."""
    failed = f", {stage.failed} failed" if stage.failed else ""
    left = "" if stage.done == stage.total else f", {duration(stage.seconds_left)} left"
    return (f"{stage.model} {stage.stage}: {stage.done} of {_total(stage)} units{failed}; "
            f"{_rate(stage)}{left}")


def draw(progress: RunProgress) -> Group:
    """The run and its stages as a table that fits 80 columns."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False,
                  show_edge=False)
    table.add_column("model", overflow="fold", ratio=1)
    table.add_column("stage", no_wrap=True)
    going = not (progress.ended or progress.silent_since)
    for name in ("units", "rate", "failed", *["time left"] * going):
        table.add_column(name, justify="right", no_wrap=True)
    shown = None
    for stage in progress.stages:
        table.add_row(
            Text(stage.model if stage.model != shown else ""), stage.stage,
            f"{stage.done} of {_total(stage)}", _rate(stage),
            Text(str(stage.failed), style="red") if stage.failed else "",
            *["" if stage.done == stage.total else duration(stage.seconds_left)] * going,
        )
        shown = stage.model
    style = "red" if progress.silent_since else "bold"
    parts: list[Text | Table] = [Text(headline(progress), style=style), table]
    if progress.damaged:
        parts.append(Text(damaged(progress), style="red"))
    if any(not stage.exact for stage in progress.stages):
        parts.append(Text("~ is an estimate from the recipe", style="dim"))
    if progress.others:
        parts.append(Text(f"other runs here (--run): {', '.join(progress.others)}", style="dim"))
    return Group(*parts)


def _total(stage: StageProgress) -> str:
    if stage.total is None:
        return "?"
    return str(stage.total) if stage.exact else f"~{stage.total}"


def _rate(stage: StageProgress) -> str:
    """Units per minute, or per hour where that would be less than one."""
    if stage.per_minute is None:
        return ""
    if stage.per_minute < 1:
        return f"{60 * stage.per_minute:.1f}/h"
    return f"{stage.per_minute:.{0 if stage.per_minute >= 10 else 1}f}/min"


def duration(seconds: float | None) -> str:
    """A time span for people, such as ``40 s``, ``12 min`` or ``5.5 h``."""
    if seconds is None:
        return _UNKNOWN
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def clock(moment: datetime) -> str:
    """A moment in UTC."""
    return moment.strftime("%Y-%m-%d %H:%M UTC")
