"""Figures of a results folder for a paper, each one call on ``prunelib.open_results(folder)``.

Each returns a matplotlib figure; ``figure.savefig("grid.pdf")`` writes it, as PDF, SVG or PNG.
``run`` and ``model`` keep one of several; without them each has panels of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from prunelib.errors import UserError

if TYPE_CHECKING:
    import duckdb
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Panels side by side.
ACROSS = 3
#: Scores of components of these kinds are dots in ``scores``; the first so many are red.
MARKED = 30
_CALLED = {"heads": "attention heads", "ffns": "FFNs"}
#: Orders of removal, as readers know them.
_ORDERS = {"own": "by the task's own scores", "aggregate": "by scores of all tasks",
           "closest": "by the closest task's scores", "farthest": "by the farthest task's scores",
           "random": "at random (control)"}
_CHOSEN = """
SELECT run, model, method, proxy, control_seed, layer, rate, search_baseline_accuracy FROM chosen
WHERE method <> 'random_search' AND coalesce(run = $1, true) AND coalesce(model = $2, true)
ORDER BY ALL
"""
_ATTRIBUTED = """
SELECT DISTINCT run, model, method, proxy, seed, layer, "index", score, "rank" FROM scores
WHERE coalesce(run = $1, true) AND coalesce(model = $2, true) ORDER BY ALL
"""
_HEADS = """
SELECT run, model, score, 'demonstrations: ' || shots, NULL, layer, "index", avg("value")
FROM component_importance
WHERE site = 'head' AND coalesce(run = $1, true) AND coalesce(model = $2, true)
GROUP BY ALL ORDER BY ALL
"""
_METHOD_NAMES = {"none": "untouched", "random_search": "random search (control)"}
_METHODS = """
SELECT run, model, task, method, accuracy, accuracy_low, accuracy_high, copying_error FROM methods
WHERE coalesce(run = $1, true) AND coalesce(model = $2, true)
ORDER BY run, model, task, method <> 'none', method <> 'random_search', method
"""
_MEANS = """
SELECT run, model, shots, NULL, "order", {share}, accuracy, accuracy_low, accuracy_high
FROM removal_means
WHERE {other} = 0 AND coalesce(run = $1, true) AND coalesce(model = $2, true) ORDER BY ALL
"""
_BY_TASK = """
SELECT run, model, shots, task, "order", {share}, avg(accuracy), min(accuracy_low),
       max(accuracy_high)
FROM removal_curves
WHERE {other} = 0 AND coalesce(run = $1, true) AND coalesce(model = $2, true)
GROUP BY ALL ORDER BY ALL
"""


def grid(con: duckdb.DuckDBPyConnection, *, run: str | None = None, model: str | None = None
         ) -> Figure:
    """Accuracy in each cell of the search (layer × share switched off); the choice is framed.

    A panel for each attribution that chose. Raises :class:`~prunelib.errors.UserError` if none did.
    """
    from prunelib.results.figures.choices import GRID, draw_grid

    rows = [(*row, cells) for row in con.execute(_CHOSEN, [run, model]).fetchall()
            if (cells := con.execute(GRID, row[:5]).fetchall())]
    figure, panels = _panels(len(rows), "choice of a search", 3.6, 3.1)
    keys = [row[:5] for row in rows]
    for panel, (*key, layer, rate, untouched, cells) in zip(panels, rows, strict=True):
        image = draw_grid(panel, cells, layer, rate)
        known = f"untouched model: {100 * untouched:.0f}%" + ", chosen" * (layer is None)
        panel.set_title(f"{_title(keys, key)}\n{known}".strip(), fontsize=9)
    bar = figure.colorbar(image, ax=panels, label="accuracy in the search (%)")
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
    return figure


def scores(con: duckdb.DuckDBPyConnection, *, run: str | None = None, model: str | None = None
           ) -> Figure:
    """Scores of components by layer, and of heads as maps; the highest of each layer are red.

    A panel for each attribution, and for each importance score of heads. Raises
    :class:`~prunelib.errors.UserError` if there are no scores.
    """
    neurons: dict[tuple[Any, ...], dict[int, list[tuple[float, int]]]] = {}
    for *key, layer, _, score, place in con.execute(_ATTRIBUTED, [run, model]).fetchall():
        neurons.setdefault(tuple(key), {}).setdefault(layer, []).append((score, place))
    heads: dict[tuple[Any, ...], list[tuple[int, int, float]]] = {}
    for *key, layer, index, value in con.execute(_HEADS, [run, model]).fetchall():
        heads.setdefault(tuple(key), []).append((layer, index, value))
    every = [*neurons, *heads]
    figure, panels = _panels(len(every), "scores of components", 3.4, 2.7)
    for panel, about in zip(panels, every, strict=True):
        alike = list(neurons) if about in neurons else list(heads)
        if about in neurons:
            _neurons(panel, neurons[about])
        else:
            _heads(panel, heads[about])
        panel.set_title(_title(alike, about) or _readable(about[2]), fontsize=9)
    return figure


def _neurons(panel: Axes, layers: dict[int, list[tuple[float, int]]]) -> None:
    """Dots of (score, rank) of each layer, by index."""
    from prunelib.results.figures.score_panels import draw_dots

    best = max(1, MARKED // len(layers))
    draw_dots(panel, {layer: np.array([score for score, _ in of]) for layer, of in layers.items()},
              [(layer, index) for layer, of in layers.items()
               for index, (_, place) in enumerate(of) if place <= best])


def _heads(panel: Axes, rows: list[tuple[int, int, float]]) -> None:
    """A map of (layer, head, score)."""
    from prunelib.results.figures.head_importance import draw_map

    cells = np.full((1 + max(row[0] for row in rows), 1 + max(row[1] for row in rows)), np.nan)
    for layer, index, value in rows:
        cells[layer, index] = value
    draw_map(panel, cells)
    panel.set_ylabel("layer")


def removal(con: duckdb.DuckDBPyConnection, *, run: str | None = None, model: str | None = None,
            by_task: bool = False) -> Figure:
    """Accuracy against the share of heads, and of FFNs, that is removed, least important first.

    One line per order with its 95% interval, the random order as control, and the untouched model
    dashed. Means over the tasks, or with ``by_task`` a panel for each. Raises
    :class:`~prunelib.errors.UserError` if the results hold no removal.
    """
    from prunelib.results.figures.removal_curves import draw_curves

    found: dict[tuple[Any, ...], dict[str, list[tuple[float, float, float, float]]]] = {}
    for share, other in (("heads", "ffns"), ("ffns", "heads")):
        sql = (_BY_TASK if by_task else _MEANS).format(share=share, other=other)
        for name, of, shots, task, order, *point in con.execute(sql, [run, model]).fetchall():
            key = (name, of, _CALLED[share], f"{shots} shot{'s' * (shots != 1)}", task)
            found.setdefault(key, {}).setdefault(order, []).append(
                (point[0], point[1], point[2], point[3]))
    found = {key: lines for key, lines in found.items()
             if any(point[0] for line in lines.values() for point in line)}
    figure, panels = _panels(len(found), "removal of heads or FFNs", 2.9, 2.4)
    for panel, (key, lines) in zip(panels, found.items(), strict=True):
        draw_curves(panel, lines, _title(list(found), key))
        untouched = next(point[1] for line in lines.values() for point in line if not point[0])
        panel.axhline(100 * untouched, color="black", linewidth=0.8, linestyle="--",
                      label="untouched model")
        panel.set(ylim=(-3, 103), xlabel=f"{key[2]} removed (%)")
    handles = {label: line for panel in panels for line, label in zip(
        *panel.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), [_ORDERS.get(label, label) for label in handles],
                  loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.supylabel("accuracy (%, 95% interval)", fontsize=9)
    return figure


def methods(con: duckdb.DuckDBPyConnection, *, run: str | None = None, model: str | None = None
            ) -> Figure:
    """Accuracy with its 95% interval and copying errors of every method; a panel for each task.

    The dashed line is the untouched model's accuracy. Raises
    :class:`~prunelib.errors.UserError` if nothing was reported.
    """
    found: dict[tuple[Any, ...], list[tuple[str, float, float | None, float | None, float]]] = {}
    for *key, name, accuracy, low, high, copying in con.execute(_METHODS, [run, model]).fetchall():
        found.setdefault(tuple(key), []).append((name, accuracy, low, high, copying))
    most = max(map(len, found.values()), default=0)
    figure, panels = _panels(len(found), "reported answers", 3.3, 1.0 + 0.25 * most)
    for panel, (of, rows) in zip(panels, found.items(), strict=True):
        for place, (name, accuracy, low, high, copying) in enumerate(rows):
            ends = None if low is None or high is None else [
                [100 * (accuracy - low)], [100 * (high - accuracy)]]
            panel.errorbar(100 * accuracy, place, xerr=ends, fmt="o", capsize=3, color="tab:blue",
                           label="accuracy (95% interval)")
            panel.plot(100 * copying, place, "x", color="tab:red", label="copying errors")
            if name == "none":
                panel.axvline(100 * accuracy, color="black", linewidth=0.8, linestyle="--",
                              label="accuracy of the untouched model")
        names = [_METHOD_NAMES.get(row[0], _readable(row[0])) for row in rows]
        panel.set_yticks(range(len(rows)), names, fontsize=8)
        panel.invert_yaxis()
        panel.set(xlim=(-3, 103), xlabel="% of answers")
        panel.set_title(_title(list(found), of) or str(of[2]), fontsize=9)
        panel.grid(axis="x", alpha=0.3)
    handles = {label: line for line, label in zip(*panels[0].get_legend_handles_labels(),
                                                  strict=True)}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=1, frameon=False,
                  fontsize=8)
    return figure


def _panels(count: int, what: str, width: float, height: float) -> tuple[Figure, list[Any]]:
    """A figure with so many panels of some inches; :class:`UserError` if that is none."""
    from matplotlib.figure import Figure

    if not count:
        raise UserError(f"nothing to draw: these results hold no {what}")
    across = 2 if count == 4 else min(ACROSS, count)
    down = -(-count // across)
    figure = Figure(figsize=(across * width + 0.7, down * height + 0.4), layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for empty in panels[count:]:
        empty.remove()
    return figure, panels[:count]


def _title(keys: list[Any], key: Any) -> str:
    """What tells a panel from the others: the parts of its key in which they differ."""
    differ = [i for i in range(len(key)) if len({other[i] for other in keys}) > 1]
    parts = [_readable(key[i]) for i in differ if key[i] is not None]
    return ", ".join(parts[:2]) + "\n" * (len(parts) > 2) + ", ".join(parts[2:])


def _readable(name: Any) -> str:
    """A name of the tables as a reader knows it."""
    return str(name).replace("_", " ")
