"""Figures of a search and its choices: the maps, what the choices do, task by task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prunelib.results.figures.drawing import ON_DARK, ON_LIGHT, Drawing, file_name

if TYPE_CHECKING:
    import duckdb
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

# Of the random searches of a proxy, one is drawn: that of the first seed.
_MAPS = """
SELECT model, method, proxy, control_seed, layer, rate, 0 AS control FROM chosen WHERE run = $1
UNION
SELECT model, method, proxy, min(control_seed), arg_min(layer, control_seed),
       arg_min(rate, control_seed), 1
FROM _labels WHERE run = $1 AND role = 'control' AND method = 'random_search' GROUP BY ALL
ORDER BY model, proxy, control, method, control_seed
"""
#: Cells of a search, of run, model, method, task and control_seed. Steering has none: it is
#: searched over settings of its own.
GRID = """
SELECT layer, rate, accuracy FROM grid
WHERE run = $1 AND model = $2 AND method = $3 AND task = $4 AND rate IS NOT NULL
  AND control_seed IS NOT DISTINCT FROM $5 ORDER BY layer, rate
"""
_OUTCOMES = """
SELECT model, method, layer, rate, accuracy, accuracy_low, accuracy_high, copying_error,
       copying_error_low, copying_error_high,
       CASE WHEN count(matched_to) OVER (PARTITION BY model) > 1 THEN matched_to END AS matched_to
FROM leaderboard WHERE run = $1
"""
# Random sets and searches as means over their seeds; the interval of a single intervention only.
_TASKS = """
SELECT model, shots, CASE method WHEN 'none' THEN 'baseline' ELSE method END AS method, task,
       avg({value}), CASE WHEN count(*) = 1 THEN any_value({value}_low) END,
       CASE WHEN count(*) = 1 THEN any_value({value}_high) END
FROM evaluations
WHERE run = $1 AND purpose = 'report' AND role IN ('baseline', 'chosen', 'control')
GROUP BY ALL ORDER BY ALL
"""
_VALUES = {"accuracy": "accuracy", "copying_error": "copying errors"}
#: Panels of a figure of maps, and methods of one of tasks; the tables have the others.
_MOST_MAPS, _MOST_METHODS = 12, 6
#: Characters of a name.
_NAME = 40
_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:purple", "tab:brown", "tab:gray")


def draw_choices(connection: duckdb.DuckDBPyConnection, run: str) -> Iterator[Drawing]:
    """For each model: the leaderboard, its tasks, and the maps of the searches with the controls'.

    A map is accuracy on the searched examples over layers and rates; the chosen cell has a frame.
    """
    lines = _by_model(connection, _OUTCOMES, run)
    for model, rows in lines.items():
        yield Drawing(file_name(run, model, "leaderboard"), "leaderboard",
                      f"{model}: accuracy and copying errors over all reported tasks, with 95% "
                      "intervals", partial(_outcomes, rows))
    values = {value: _by_model(connection, _TASKS.format(value=value), run) for value in _VALUES}
    for model in values["accuracy"]:
        yield Drawing(file_name(run, model, "tasks"), "tasks",
                      f"{model}: accuracy and copying errors for each task and number of shots, "
                      "with 95% intervals",
                      partial(_tasks, {name: values[name][model] for name in values}))
    for model, rows in _by_model(connection, _MAPS, run).items():
        found = [(row, connection.sql(GRID, params=[run, model, *row[:3]]).fetchall())
                 for row in rows]
        drawn = [(row, cells) for row, cells in found if cells][:_MOST_MAPS]
        if drawn:
            yield Drawing(file_name(run, model, "search"), "search",
                          f"{model}: accuracy on the searched examples (%) for each layer and "
                          "share that is switched off; the chosen cell has a frame",
                          partial(_maps, drawn))


def _by_model(connection: duckdb.DuckDBPyConnection, sql: str, run: str
              ) -> dict[str, list[tuple[Any, ...]]]:
    """Model → its lines, without the model."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for model, *row in connection.sql(sql, params=[run]).fetchall():
        found.setdefault(model, []).append(tuple(row))
    return found


def _maps(drawn: list[tuple[tuple[Any, ...], list[Any]]]) -> Figure:
    from matplotlib.figure import Figure

    across = min(3, len(drawn))
    down = -(-len(drawn) // across)
    tall = max(len({cell[0] for cell in cells}) for _, cells in drawn)
    figure = Figure(figsize=(3.4 * across, down * (1.3 + min(0.24 * tall, 6))),
                    layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for panel in axes[len(drawn):]:
        panel.axis("off")
    for panel, ((method, proxy, seed, layer, rate, control), cells) in zip(axes, drawn,
                                                                           strict=False):
        draw_grid(panel, cells, layer, rate)
        name = "control: random search" if control else shorten(method, 30, placeholder="…")
        seeded = "" if seed is None else f", seed {seed}"
        off = "\nchosen: switch nothing off" if layer is None else ""
        panel.set_title(f"{name}{seeded}\n{shorten(proxy, 34, placeholder='…')}{off}", fontsize=9)
    return figure


def draw_grid(axes: Axes, rows: list[Any], layer: int | None, rate: float | None) -> AxesImage:
    """Heat map of (layer, rate, accuracy); the chosen cell, if it is one, has a frame."""
    from matplotlib.patches import Rectangle

    layers = sorted({row[0] for row in rows})
    rates = sorted({row[1] for row in rows})
    cells = np.full((len(layers), len(rates)), np.nan)
    for cell_layer, cell_rate, value in rows:
        cells[layers.index(cell_layer), rates.index(cell_rate)] = value
    image = axes.imshow(cells, cmap="viridis", vmin=0, vmax=1, aspect="auto", origin="lower")
    for i, j in zip(*np.nonzero(~np.isnan(cells)), strict=True):  # strategies leave cells out
        value = cells[i, j]
        axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=8,
                  color=ON_LIGHT if value > 0.55 else ON_DARK)
    if layer is not None and rate is not None:
        axes.add_patch(Rectangle((rates.index(rate) - 0.5, layers.index(layer) - 0.5), 1, 1,
                                 fill=False, edgecolor="red", linewidth=2.5))
    axes.set_xticks(range(len(rates)), [f"{100 * r:g}" for r in rates])
    axes.set_yticks(range(len(layers)), [str(i) for i in layers])
    axes.set(xlabel="% of the layer switched off", ylabel="layer")
    return image


def _outcomes(rows: list[tuple[Any, ...]]) -> Figure:
    """Accuracy and copying errors with intervals, one line per line of the leaderboard."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 1.3 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names = []
    for method, layer, rate, *_, matched in rows:
        label = "baseline" if method == "none" else method
        if matched is not None:  # random controls of several choices
            label += f" as {shorten(matched, _NAME, placeholder='…')}"
        where = "several layers" if layer is None else f"layer {layer}"
        names.append(label if rate is None else f"{label}\n{where}, {100 * rate:g}%")
    places = np.arange(len(rows), dtype=float)
    _points(axes, places, [row[3:6] for row in rows], "o", "tab:blue", "accuracy")
    _points(axes, places + 0.16, [row[6:9] for row in rows], "x", "tab:red", "copying errors")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlim=(-2, 102), xlabel="% of answers")
    axes.grid(axis="x", alpha=0.3)
    _legend(figure, axes)
    return figure


def _points(axes: Axes, places: Sequence[float] | NDArray[np.float64], values: Sequence[Any],
            marker: str, colour: str, label: str) -> None:
    """Values with their intervals, in per cent; a single random set has no interval."""
    value, low, high = 100 * np.array(values, float).T
    axes.errorbar(value, places, xerr=[value - low, high - value], fmt=marker, color=colour,
                  capsize=2.5, markersize=4.5, linewidth=1.1, label=label)


def _legend(figure: Figure, axes: Axes) -> None:
    lines, labels = axes.get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=min(3, len(labels)),
                  frameon=False)


def _tasks(values: dict[str, list[tuple[Any, ...]]]) -> Figure:
    """A panel for each number of shots and each value, a line for each task."""
    from matplotlib.figure import Figure

    rows = values["accuracy"]
    every = sorted({row[0] for row in rows})
    tasks = sorted({row[2] for row in rows})
    methods = sorted({row[1] for row in rows}, key=lambda m: (m != "baseline", "random" in m, m))
    shown = methods[:_MOST_METHODS]
    figure = Figure(figsize=(2.2 + 2.1 * len(every),
                             2 * (0.7 + len(tasks) * (0.1 + 0.07 * len(shown)))),
                    layout="constrained")
    axes = figure.subplots(2, len(every), sharey=True, squeeze=False)
    for line, (name, called) in zip(axes, _VALUES.items(), strict=True):
        for panel, shots in zip(line, every, strict=True):
            for place, method in enumerate(shown):
                found = {task: value for of, by, task, *value in values[name]
                         if (of, by) == (shots, method)}
                if found:
                    lines = [tasks.index(task) + 0.7 * (place / len(shown) - 0.4) for task in found]
                    _points(panel, lines, list(found.values()), "o", _COLOURS[place], method)
            panel.set_title(f"{called}, {shots} shot{'s' * (shots != 1)}", fontsize=9)
            panel.set(xlim=(-3, 103), xlabel="% of answers")
            panel.set_yticks(range(len(tasks)),
                             [shorten(task, _NAME, placeholder="…") for task in tasks])
            panel.set_ylim(len(tasks) - 0.5, -0.5)
            panel.grid(axis="x", alpha=0.3)
    _legend(figure, axes[0][0])
    return figure
