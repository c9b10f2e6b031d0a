"""What came out of a run, as tables for people: neurons, removal of heads and FFNs, labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from prunelib.recipe.heads import ORDERS

_REMOVAL = """
SELECT model, shots, heads, ffns, "order", accuracy FROM removal_means
WHERE run = $1 AND (heads = 0 OR ffns = 0) ORDER BY ALL
"""
_LABELS = """
SELECT model, task, removed, accuracy, difference_to_random AS difference,
       difference_to_random_low AS difference_low, difference_to_random_high AS difference_high
FROM in_context WHERE run = $1 AND gold IS NULL ORDER BY model, task
"""


def outcome(results: str, run: str) -> tuple[Group, str]:
    """One table per model for each kind of study; and a question to ask next (SQL)."""
    from prunelib.results.query import open_results

    connection = open_results(results)
    tables: list[Table | Text] = []
    sql = "select * from runs"
    for query, title, table, ask in (
        ("SELECT * FROM leaderboard WHERE run = $1", "report split, % of answers (95% intervals)",
         _leaderboard, "select * from chosen"),
        (_REMOVAL, "% right without the least important heads or FFNs, mean over tasks",
         _removal, "select * from removal_means"),
        (_LABELS, "% right with two new labels, without in-context heads", _labels,
         "select * from in_context"),
    ):
        rows = connection.sql(query, params=[run]).to_arrow_table().to_pylist()
        # A study of heads has a baseline, which is no leaderboard.
        if any(row.get("role", row.get("method")) != "none" for row in rows):
            tables += [Text(f"{run}: {title}", style="italic"), *table(rows).values()]
            sql = ask
    return Group(*tables), sql


def _share(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{100 * row[name]:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def _difference(row: dict[str, Any]) -> str:
    if row["difference"] is None:
        return ""
    low, high = row["difference_low"], row["difference_high"]
    return f"{100 * row['difference']:+.1f} ({100 * low:+.1f}, {100 * high:+.1f})"


def _place(row: dict[str, Any]) -> str:
    if row["rate"] is None:
        return ""
    layer = "several layers" if row["layer"] is None else f"layer {row['layer']}"
    return f"\n  {layer}, {100 * row['rate']:g}% off"


def _leaderboard(rows: list[dict[str, Any]]) -> dict[str, Table]:
    """Baseline, pruned and random with intervals, one table per model; fits 80 columns."""
    tables: dict[str, Table] = {}
    sets = Counter(row["model"] for row in rows if row["matched_to"])
    for row in rows:
        table = tables.setdefault(row["model"], _table(
            row["model"], "method", ("accuracy", "copying errors", "vs baseline")))
        name = "baseline" if row["method"] == "none" else row["method"]
        if row["matched_to"] and sets[row["model"]] > 1:
            name += f" as {row['matched_to']}"
        table.add_row(name + _place(row),
                      _share(row, "accuracy"), _share(row, "copying_error"), _difference(row))
    return tables


def _removal(rows: list[dict[str, Any]]) -> dict[str, Table]:
    """Accuracy by the share that is removed, a column for every order."""
    orders = [order for order in ORDERS if any(row["order"] == order for row in rows)]
    cells: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        kind = "heads" if row["heads"] else "FFNs"
        name = f"{100 * max(row['heads'], row['ffns']):g}% of {kind}" if max(
            row["heads"], row["ffns"]) else "nothing"
        lines = cells.setdefault(f"{row['model']}, {row['shots']} shots", {})
        lines.setdefault(name, {})[row["order"]] = row["accuracy"]
    tables = {}
    for title, lines in cells.items():
        tables[title] = _table(title, "removed", orders)
        for name, found in lines.items():
            tables[title].add_row(name, *(f"{100 * found[order]:.1f}" if order in found else ""
                                          for order in orders))
    return tables


def _labels(rows: list[dict[str, Any]]) -> dict[str, Table]:
    """Accuracy on each task with the heads of both labels, of one, and random ones off."""
    cells: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for row in rows:
        cells.setdefault(row["model"], {}).setdefault(row["task"], {})[row["removed"]] = row
    tables = {}
    sets = ("none", "both", "first", "second", "random")
    for model, tasks in cells.items():
        tables[model] = _table(model, "task", (*sets, "both vs random"))
        for task, found in tasks.items():
            tables[model].add_row(
                task, *(f"{100 * found[name]['accuracy']:.1f}" if name in found else ""
                        for name in sets), _difference(found["both"]) if "both" in found else "")
    return tables


def _table(title: str, first: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD,
                  padding=(0, 1), collapse_padding=True, pad_edge=False, show_edge=False)
    table.add_column(first, min_width=20)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table
