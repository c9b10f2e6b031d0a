"""The leaderboard for people, as it closes a run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from prunelib.pipeline.stages.choice_notes import choices, notes, switching_nothing_off
from prunelib.pipeline.stages.study import Summary, SummaryTable, percent, points

if TYPE_CHECKING:
    import duckdb

#: Columns of the leaderboard that are differences, and their short names.
_DIFFERENCES = {"difference": "vs baseline", "difference_to_random": "vs random",
                "difference_to_random_search": "vs search"}


def leaderboard(connection: duckdb.DuckDBPyConnection, run: str, alone: bool = False
                ) -> Summary | None:
    """The leaderboard of a run, or ``None`` while it has nothing to compare.

    With ``alone`` the untouched model is enough.
    """
    rows = connection.sql("SELECT * FROM leaderboard WHERE run = $1",
                          params=[run]).to_arrow_table().to_pylist()
    # A study of heads has a baseline, too.
    if not rows or not (alone or any(row["method"] != "none" for row in rows)):
        return None
    return Summary("report split, % of answers (95% intervals)",
                   _tables(rows, switching_nothing_off(connection, run), choices(connection, run)),
                   "select * from chosen")


def _tables(rows: list[dict[str, Any]], nothing: set[tuple[str, str]],
            chosen: dict[str, list[dict[str, Any]]]) -> tuple[SummaryTable, ...]:
    """Baseline, pruned and random with intervals, one table per model; fits 80 columns."""
    tables: dict[str, list[tuple[str, ...]]] = {}
    sets = Counter(row["model"] for row in rows if row["matched_to"])
    shown = [name for name in _DIFFERENCES if any(row[name] is not None for row in rows)]
    for row in rows:
        name = "baseline" if row["method"] == "none" else row["method"]
        if row["matched_to"] and sets[row["model"]] > 1:
            name += f" as {row['matched_to']}"
        tables.setdefault(row["model"], []).append((
            name + ("\n  nothing off" if (row["model"], row["method"]) in nothing
                    else _place(row)),
            _below(percent(row, "accuracy")),
            f"{100 * row['copying_error']:.1f}",
            *(_below(points(row, difference)) for difference in shown)))
    columns = ("method", "accuracy", "copied", *(_DIFFERENCES[name] for name in shown))
    return tuple(SummaryTable(model, columns, tuple(lines), notes(chosen.get(model, [])))
                 for model, lines in tables.items())


def _below(text: str) -> str:
    """The interval below its value."""
    return text.replace(" (", "\n", 1).removesuffix(")")


def _place(row: dict[str, Any]) -> str:
    if row["rate"] is None:
        return ""
    layer = "several layers" if row["layer"] is None else f"layer {row['layer']}"
    return f"\n  {layer}, {100 * row['rate']:.3g}% off"
