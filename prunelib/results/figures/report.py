"""Figures of a results folder: what a search chose, and how much heads and FFNs matter."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np

from prunelib.errors import UserError
from prunelib.results.figures.head_importance import draw_heads
from prunelib.results.query import open_results

if TYPE_CHECKING:
    import duckdb
    from matplotlib.axes import Axes

_GRID = """
SELECT layer, rate, accuracy FROM grid
WHERE run = $1 AND model = $2 AND method = $3 AND task = $4
  AND control_seed IS NOT DISTINCT FROM $5 ORDER BY layer, rate
"""
_OUTCOMES = """
SELECT method, layer, rate, accuracy, accuracy_low, accuracy_high, copying_error,
       CASE WHEN count(matched_to) OVER () > 1 THEN matched_to END AS matched_to
FROM leaderboard WHERE run = $1 AND model = $2
"""
_CHOSEN = """
SELECT run, model, method, proxy, control_seed, layer, rate,
       count(*) OVER (PARTITION BY run, model) AS choices
FROM chosen ORDER BY run, model, method, proxy, control_seed
"""


def draw_report(results: Path | str, out: Path | str) -> list[Path]:
    """PNGs of every run and model: one per choice, and those of an importance study; the paths.

    Of a choice: left, the grid of the search as a heat map of accuracy over layers and rates, the
    chosen cell framed. Right, accuracy on the reported tasks with its 95% interval and the copying
    error, for the baseline, the choice and the controls. Of heads and FFNs: :func:`draw_heads`.
    Raises :class:`UserError` if there is nothing to draw yet.
    """
    connection = open_results(results)
    written = _choices(connection, Path(out)) + draw_heads(connection, Path(out))
    if not written:
        raise UserError(f"no run in {results} has come as far as a choice or an importance score: "
                        "nothing to draw yet")
    return written


def _choices(connection: duckdb.DuckDBPyConnection, out: Path) -> list[Path]:
    """A picture of every choice."""
    from matplotlib.figure import Figure

    chosen = connection.sql(_CHOSEN).fetchall()
    written = []
    for run, model, method, proxy, seed, layer, rate, choices in chosen:
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
        _grid(left, connection, [run, model, method, proxy, seed], layer, rate)
        _outcomes(right, connection, [run, model])
        which = [method, proxy, *([] if seed is None else [f"seed {seed}"])] * (choices > 1)
        figure.suptitle(", ".join([f"{model} ({run})", *which]), fontsize=11)
        name = "-".join([run, Path(model).name, *which]).replace(" ", "")
        path = out / f"{name}.png"
        out.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
        written.append(path)
    return written


def _grid(axes: Axes, connection: duckdb.DuckDBPyConnection, key: list[Any],
          layer: int | None, rate: float | None) -> None:
    """Heat map of search accuracy; the chosen cell, if it is one, has a frame."""
    from matplotlib.patches import Rectangle

    rows = connection.sql(_GRID, params=key).fetchall()
    layers = sorted({row[0] for row in rows})
    rates = sorted({row[1] for row in rows})
    cells = np.full((len(layers), len(rates)), np.nan)
    for cell_layer, cell_rate, value in rows:
        cells[layers.index(cell_layer), rates.index(cell_rate)] = value
    axes.imshow(cells, cmap="viridis", vmin=0, vmax=1, aspect="auto", origin="lower")
    for i, j in zip(*np.nonzero(~np.isnan(cells)), strict=True):  # strategies leave cells out
        value = cells[i, j]
        axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=9,
                  color="black" if value > 0.55 else "white")
    if layer is not None and rate is not None:
        axes.add_patch(Rectangle((rates.index(rate) - 0.5, layers.index(layer) - 0.5), 1, 1,
                                 fill=False, edgecolor="red", linewidth=2.5))
    axes.set_xticks(range(len(rates)), [f"{100 * r:g}%" for r in rates])
    axes.set_yticks(range(len(layers)), [str(i) for i in layers])
    axes.set(xlabel="neurons of the layer switched off", ylabel="layer",
             title="search: accuracy on the proxy (%)"
                   + "\nchosen: switch nothing off" * (layer is None))


def _outcomes(axes: Axes, connection: duckdb.DuckDBPyConnection, key: list[Any]) -> None:
    """Accuracy with interval, and copying error, one line per line of the leaderboard."""
    rows = connection.sql(_OUTCOMES, params=key).fetchall()
    names = []
    for place, (method, layer, rate, accuracy, low, high, copying, matched) in enumerate(rows):
        label = "baseline" if method == "none" else method
        if matched is not None:  # random controls of several choices
            label += f" as {shorten(matched, 40, placeholder='…')}"
        where = "several layers" if layer is None else f"layer {layer}"
        names.append(label if rate is None else f"{label}\n{where}, {100 * rate:g}%")
        # A single random set has no interval.
        interval = None if low is None else [[100 * (accuracy - low)], [100 * (high - accuracy)]]
        axes.errorbar(100 * accuracy, place, xerr=interval, fmt="o", color="tab:blue", capsize=4,
                      label="accuracy (95% interval)" if place == 0 else None)
        axes.plot(100 * copying, place, "x", color="tab:red", markersize=8,
                  label="copying errors" if place == 0 else None)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlim=(-2, 102), xlabel="% of answers", title="report: all evaluated tasks")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False)
