"""Panels of scores by layer: heads as a map, neurons as dots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


def head_map(cells: Array, layers: Sequence[int], title: str) -> Figure:
    """A heat map of scores of heads ``[layers, heads]``."""
    from matplotlib.figure import Figure

    from prunelib.results.figures.head_importance import draw_map

    figure = Figure(figsize=(float(np.clip(2 + 0.2 * cells.shape[1], 3.6, 8)),
                             float(np.clip(1.5 + 0.2 * len(layers), 2.6, 8))), layout="constrained")
    axes = figure.subplots()
    draw_map(axes, cells)
    axes.set_ylabel("layer")
    axes.set_title(fill(title, 44), fontsize=9)
    return figure


def dots(values: Mapping[int, Array], first: Sequence[tuple[int, int]], title: str) -> Figure:
    """Scores of every component over its layer; the ``first`` (layer, index) are red."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(float(np.clip(2 + 0.28 * len(values), 3.6, 9)), 3.2),
                    layout="constrained")
    axes = figure.subplots()
    draw_dots(axes, values, first)
    axes.set_title(fill(title, 44), fontsize=9)
    return figure


def draw_dots(axes: Axes, values: Mapping[int, Array], first: Sequence[tuple[int, int]]) -> None:
    """The same in a panel."""
    from matplotlib.ticker import MaxNLocator

    for layer, scores in values.items():
        # Side by side within the layer, in the order of their indices.
        axes.scatter(layer + np.linspace(-0.35, 0.35, len(scores)), scores, s=3, color="tab:gray",
                     alpha=0.5, linewidths=0, rasterized=True)
    places = [(layer + np.linspace(-0.35, 0.35, len(values[layer]))[index], values[layer][index])
              for layer, index in first]
    axes.scatter([x for x, _ in places], [y for _, y in places], s=10, color="tab:red",
                 linewidths=0, label=f"first {len(first)}")
    axes.axhline(0, color="black", linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="layer", ylabel="score")
    axes.legend(frameon=False, fontsize=8)
