"""Figures of what is left of a model while its heads and FFNs are removed."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from prunelib.results.figures.drawing import ON_DARK, ON_LIGHT

if TYPE_CHECKING:
    import duckdb
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Fraction removed, accuracy (or what is left), lower and upper end.
_Point = tuple[float, float, float, float]

# A random order is drawn as the mean over its seeds, from the lowest end to the highest.
_CURVES = """
SELECT shots, task, "order", {share}, avg(accuracy), min(accuracy_low), max(accuracy_high)
FROM removal_curves WHERE run = $1 AND model = $2 AND {other} = 0 GROUP BY ALL
UNION ALL
SELECT shots, NULL, "order", {share}, accuracy, accuracy_low, accuracy_high
FROM removal_means WHERE run = $1 AND model = $2 AND {other} = 0
ORDER BY ALL
"""
_JOINT = """
SELECT shots, heads, ffns, accuracy FROM removal_means
WHERE run = $1 AND model = $2 AND "order" = 'own' ORDER BY ALL
"""
_RETENTION = """
SELECT score, shots, "order", heads, avg(retained), min(retained), max(retained)
FROM (SELECT r.* REPLACE (coalesce(r.shots, s.shots) AS shots) FROM retention r
      JOIN (SELECT DISTINCT run, model, shots FROM removal_curves) s USING (run, model))
WHERE run = $1 AND model = $2 AND retained IS NOT NULL GROUP BY ALL ORDER BY ALL
"""
_COLOURS = {"own": "tab:blue", "aggregate": "tab:green", "closest": "tab:orange",
            "farthest": "tab:red", "random": "tab:gray"}
#: Scores whose sum over heads is drawn (formulas.md §3.3).
_CAPACITIES = ("prefix_matching", "copying", "copying_own_value")
#: Tasks side by side.
_ACROSS = 4


def draw_removals(connection: duckdb.DuckDBPyConnection, run: str, model: str
                  ) -> dict[str, Figure | None]:
    """The figures by name.

    Accuracy against the share removed, task by task, for heads and FFNs and every number of shots;
    heads and FFNs at once; what is left of prefix matching and copying.
    """
    figures: dict[str, Figure | None] = {}
    for share, other, called in (("heads", "ffns", "heads"), ("ffns", "heads", "FFNs")):
        sql = _CURVES.format(share=share, other=other)
        found: dict[int, dict[str | None, dict[str, list[_Point]]]] = defaultdict(dict)
        for shots, task, order, *point in connection.sql(sql, params=[run, model]).fetchall():
            lines = found[shots].setdefault(task, defaultdict(list))
            lines[order].append((point[0], point[1], point[2], point[3]))
        for shots, tasks in found.items():
            if any(point[0] for lines in tasks.values() for line in lines.values()
                   for point in line):
                figures[f"removal-{share}-{shots}-shots"] = _curves(tasks, called, shots)
    figures["joint"] = _joint(connection.sql(_JOINT, params=[run, model]).fetchall())
    figures["retention"] = _retention(connection.sql(_RETENTION, params=[run, model]).fetchall())
    return figures


def _grid(count: int, across: int, xlabel: str) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, which share their axes."""
    from matplotlib.figure import Figure

    across = min(across, count)
    down = math.ceil(count / across)
    figure = Figure(figsize=(max(5.0, 2.9 * across), 2.2 * down + 1.2), layout="constrained")
    axes = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
    for panel in axes[count:]:
        panel.axis("off")
    for place, panel in enumerate(axes[:count]):
        panel.tick_params(labelbottom=place + across >= count)
        if place + across >= count:
            panel.set_xlabel(xlabel, fontsize=9)
    return figure, axes[:count]


def draw_curves(axes: Axes, lines: dict[str, list[_Point]], title: str) -> None:
    """One line with its band per order, in per cent."""
    for order in sorted(lines, key=list(_COLOURS).index):
        x, middle, low, high = 100 * np.array(lines[order], float).T  # no interval: nan
        axes.plot(x, middle, color=_COLOURS[order], marker="o", markersize=2.5, linewidth=1.4,
                  label=order)
        axes.fill_between(x, low, high, color=_COLOURS[order], alpha=0.13, linewidth=0)
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3)


def _legend(figure: Figure, axes: list[Axes], ylabel: str) -> None:
    """One legend for all panels, and the name of the axis that they share."""
    found: dict[str, Any] = {}
    for panel in axes:
        found |= {label: line for line, label in zip(*panel.get_legend_handles_labels(),
                                                     strict=True)}
    names = [name for name in _COLOURS if name in found]
    figure.legend([found[name] for name in names], names, loc="outside lower center",
                  ncols=len(names), frameon=False, fontsize=9)
    figure.supylabel(ylabel, fontsize=9)


def _curves(tasks: dict[str | None, dict[str, list[_Point]]], called: str, shots: int) -> Figure:
    """Accuracy against the share removed: the mean over tasks first, then every task."""
    figure, axes = _grid(len(tasks), _ACROSS, f"{called} removed (%)")
    ordered = sorted(tasks, key=lambda task: (task is not None, task))
    for panel, task in zip(axes, ordered, strict=True):
        draw_curves(panel, tasks[task], task or f"mean over {len(tasks) - 1} tasks")
        panel.set(ylim=(-3, 103))
    _legend(figure, axes, "accuracy (%, 95% interval)")
    figure.suptitle(f"removing {called}, least important first, {shots} shot{'s' * (shots != 1)}")
    return figure


def _retention(rows: list[Any]) -> Figure | None:
    """What is left of the heads' total score; bands from the lowest to the highest task or seed."""
    panels: dict[tuple[str, int], dict[str, list[_Point]]] = {}
    for score, shots, order, share, middle, low, high in rows:
        lines = panels.setdefault((score, shots), defaultdict(list))
        lines[order].append((share, middle / 100, low / 100, high / 100))
    if not panels:
        return None
    every = sorted({shots for _, shots in panels})
    names = [name for name in _CAPACITIES if any(score == name for score, _ in panels)]
    figure, axes = _grid(len(names) * len(every), len(every), "heads removed (%)")
    for panel, (score, shots) in zip(axes, itertools.product(names, every), strict=True):
        draw_curves(panel, panels[score, shots], f"{score}, {shots} shot{'s' * (shots != 1)}")
        panel.set(ylim=(-3, 103))
    _legend(figure, axes, "left of the sum over heads (%)")
    figure.suptitle("what is left of the heads' prefix matching and copying, mean over tasks")
    return figure


def _joint(rows: list[Any]) -> Figure | None:
    """Mean accuracy after removing a share of heads and one of FFNs at once."""
    if not any(heads and ffns for _, heads, ffns, _ in rows):
        return None
    of_heads, of_ffns = (sorted({row[i] for row in rows}) for i in (1, 2))
    every = sorted({row[0] for row in rows})
    figure, axes = _grid(len(every), len(every), "heads removed (%)")
    width, height = figure.get_size_inches()
    figure.set_size_inches(max(width, len(axes) * (0.36 * len(of_heads) + 1)),
                           height + 0.25 * len(of_ffns) - 0.8)
    for panel, shots in zip(axes, every, strict=True):
        cells = np.full((len(of_ffns), len(of_heads)), np.nan)
        for _, heads, ffns, accuracy in (row for row in rows if row[0] == shots):
            cells[of_ffns.index(ffns), of_heads.index(heads)] = 100 * accuracy
        panel.imshow(cells, cmap="viridis", vmin=0, vmax=100, origin="lower", aspect="auto")
        for i, j in zip(*np.nonzero(~np.isnan(cells)), strict=True):
            panel.text(j, i, f"{cells[i, j]:.0f}", ha="center", va="center", fontsize=8,
                       color=ON_LIGHT if cells[i, j] > 55 else ON_DARK)
        panel.set_xticks(range(len(of_heads)), [f"{100 * share:g}" for share in of_heads])
        panel.set_yticks(range(len(of_ffns)), [f"{100 * share:g}" for share in of_ffns])
        panel.set_title(f"{shots} shot{'s' * (shots != 1)}", fontsize=9)
    figure.supylabel("FFNs removed (%)", fontsize=9)
    figure.suptitle("heads and FFNs at once: accuracy (%), mean over tasks")
    return figure
