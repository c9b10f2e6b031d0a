"""What happened to the results of a place of late, in a screenful of lines."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from jobs.watch import clock, duration, headline
from prunelib.pipeline.progress import read_progress
from prunelib.results.query import open_results
from prunelib.results.report.run import blocks_computed, compute_views
from prunelib.results.report.words import SUMMARISED, best_choices, summary
from prunelib.results.storage.store import Store

if TYPE_CHECKING:
    import duckdb

#: Width of a line, and the most of them.
WIDTH, MOST = 80, 20
#: Lines of an entry at most.
_ENTRY = 3
#: Part → lines that it has at most; what one leaves free, the next ones may use.
_LINES = {"runs": 4, "failed": 4, "left out": 2, "best": 6, "look at": 2}
_RUNS = """
SELECT run, started, finished, units_done FROM runs
WHERE coalesce(finished, heartbeat, started) >= $1 ORDER BY started DESC, run
"""
_FAILED = """
SELECT stage, model, error_kind, count(*) AS units, min(error_text) AS error_text
FROM failed_units WHERE run = $1 GROUP BY ALL ORDER BY units DESC, stage, model
"""


def digest(results: str, since: timedelta, now: datetime | None = None) -> list[str]:
    """The runs of the last hours: how they ended, what failed and why, what was found.

    Raises :class:`prunelib.errors.UserError` if there are no results.
    """
    after = (now or datetime.now(UTC)) - since
    store = Store.open(results, create=False)
    parts: dict[str, list[str]] = {part: [] for part in _LINES}
    with open_results(results) as connection:
        runs = connection.sql(_RUNS, params=[after]).to_arrow_table().to_pylist()
        for row in runs:
            parts["runs"].append(_ended(store, row, now))
            for failure in connection.sql(_FAILED, params=[row["run"]]).to_arrow_table(
                    ).to_pylist():
                parts["left out" if failure["stage"] == "model" else "failed"].append(
                    _failure(failure))
    for row in runs:
        with open_results(results) as connection:
            with blocks_computed(connection, row["run"]):
                compute_views(connection, row["run"], SUMMARISED)
            _found(connection, row["run"], parts)
    name = f"{len(runs)} run{'s' * (len(runs) != 1)}"
    lines = [f"{name} since {clock(after)}"]
    spare = 0
    for part, most in _LINES.items():
        shown = _fitted(part, list(dict.fromkeys(parts[part])), most + spare)
        spare += most - len(shown)
        lines += shown
    return [*lines, f"Next: prunelib report --results {results}"] if runs else lines


def _ended(store: Store, row: dict[str, Any], now: datetime | None) -> str:
    """How a run ended, or that it goes on."""
    told = f"{headline(read_progress(store, row['run'], now))}; {row['units_done']} units"
    if row["finished"] is None:
        return told
    return f"{told} in {duration((row['finished'] - row['started']).total_seconds())}"


def _failure(row: dict[str, Any]) -> str:
    text = (row["error_text"] or "").partition("\n")[0]
    if row["stage"] == "model":
        return f"{row['model']}: {text}"
    return (f"{row['units']} units of {row['stage']}, {row['model']}: {row['error_kind']}: {text}")


def _found(connection: duckdb.DuckDBPyConnection, run: str, parts: dict[str, list[str]]) -> None:
    """Add what the report of a run says first."""
    parts["best"] += [f"{model}: {text}" for model, text in best_choices(connection)]
    parts["look at"] += [f"{said.model or run}: {said.text}" for said in summary(connection, run)
                         if said.look]


def _fitted(part: str, entries: list[str], most: int) -> list[str]:
    """Entries in ``most`` lines at most; the last one says how many there was no place for."""
    indent = " " * (max(map(len, _LINES)) + 2)
    lines: list[str] = []
    for i, entry in enumerate(entries):
        found = textwrap.wrap(" ".join(entry.split()), WIDTH, initial_indent=indent,
                              subsequent_indent=f"{indent}  ", max_lines=_ENTRY, placeholder="…")
        later = len(entries) - i - 1
        if len(lines) + len(found) > most - bool(later):
            lines.append(f"{indent}and {later + 1} more")
            break
        lines += found
    if lines:
        lines[0] = part + lines[0][len(part):]
    return lines
