"""Figures of an importance study: where important heads and FFNs sit, and how rankings agree.

Everything is drawn from views. One file holds one kind of panel for a model of a run, so that a
model with thousands of heads and many tasks stays readable.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prunelib.results.figures.drawing import (
    ON_DARK,
    ON_LIGHT,
    Drawing,
    drawing,
    file_name,
)
from prunelib.results.figures.removal_curves import draw_removals

if TYPE_CHECKING:
    import duckdb
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STUDIES = """
SELECT model FROM component_importance WHERE run = $1
UNION SELECT model FROM removal_curves WHERE run = $1 ORDER BY ALL
"""
_SCORES = """
SELECT score, shots, layer, "index", avg("value") FROM component_importance
WHERE run = $1 AND model = $2 AND site = $3 GROUP BY ALL
"""
_TASKS = """
SELECT score, shots, layer, "value" FROM component_importance
WHERE run = $1 AND model = $2 AND site = 'ffn' AND task IS NOT NULL
"""
_PAIRS = """
SELECT site, score, task, shots, other_score, other_task, other_shots, spearman
FROM importance_agreement WHERE run = $1 AND model = $2 AND spearman IS NOT NULL
"""
#: Scores in the order in which they are drawn; others follow.
_ORDER = ("oracle", "gradient_gate", "gradient_per_token", "gradient_signed", "prefix_matching",
          "copying", "copying_own_value")
_CALLED = {"head": "heads", "ffn": "FFNs"}


class _Pair(NamedTuple):
    """A line of ``importance_agreement``."""

    site: str
    score: str
    task: str | None
    shots: int | None
    other_score: str
    other_task: str | None
    other_shots: int | None
    spearman: float


def draw_heads(connection: duckdb.DuckDBPyConnection, run: str) -> Iterator[Drawing]:
    """Every figure of an importance study; none without one.

    Heat maps of heads and bars of FFNs (means over tasks, Eq. 10 of formulas.md §3.1), correlations
    between the rankings of tasks, numbers of shots and scores, and what :func:`draw_removals`
    draws.
    """
    for (model,) in connection.sql(_STUDIES, params=[run]).fetchall():
        pairs = [_Pair(*row) for row in connection.sql(_PAIRS, params=[run, model]).fetchall()]
        with drawing():
            figures = {"heads": ("heads", _head_maps(connection, run, model)),
                       "ffns": ("heads", _ffn_bars(connection, run, model)),
                       "scores": ("correlations", _between_scores(pairs))}
            for site, name in _CALLED.items():
                figures[f"agreement-{name.lower()}"] = ("correlations", _between_tasks(
                    [pair for pair in pairs if pair.site == site], name))
            figures |= {name: ("removal", figure)
                        for name, figure in draw_removals(connection, run, model).items()}
        for name, (section, figure) in figures.items():
            if figure is not None:
                yield Drawing(file_name(run, model, name), section,
                              " ".join(f"{model}: {figure.get_suptitle()}".split()), figure)


def _placed(score: str) -> tuple[int, str]:
    return (_ORDER.index(score) if score in _ORDER else len(_ORDER)), score


def _head_maps(connection: duckdb.DuckDBPyConnection, run: str, model: str) -> Figure | None:
    """Layers × heads per score: a row for each number of shots, and one for random sequences."""
    rows = connection.sql(_SCORES, params=[run, model, "head"]).fetchall()
    if not rows:
        return None
    layers, heads = (1 + max(row[i] for row in rows) for i in (2, 3))
    panels: dict[tuple[int | None, str], NDArray[np.float64]] = {}
    for score, shots, layer, index, value in rows:
        panels.setdefault((shots, score), np.full((layers, heads), np.nan))[layer, index] = value
    lines = _lines(panels)
    width, height = np.clip(1.3 + 0.045 * heads, 2.5, 4.5), np.clip(1 + 0.045 * layers, 1.7, 3.9)
    figure, axes = _panels(len(lines), max(map(len, lines)), width, height)
    for line, keys in zip(axes, lines, strict=True):
        for place, (shots, score) in zip(line, keys, strict=False):
            draw_map(place, panels[shots, score])
            place.set_title(_title(score, shots), fontsize=9)
        line[0].set_ylabel("layer")
    figure.suptitle("scores of heads, mean over tasks")
    return figure


def _lines(panels: dict[tuple[int | None, str], Any]) -> list[list[tuple[int | None, str]]]:
    """Keys (shots, score) line by line: each number of shots, then what has none."""
    every = sorted({shots for shots, _ in panels}, key=lambda k: (k is None, k))
    return [sorted((key for key in panels if key[0] == shots), key=lambda key: _placed(key[1]))
            for shots in every]


def _title(score: str, shots: int | None) -> str:
    return score if shots is None else f"{score}, {shots} shot{'s' * (shots != 1)}"


def _panels(down: int, across: int, width: float, height: float) -> tuple[Figure, Any]:
    """A figure with a grid of panels of some inches; those that stay empty are not seen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(5.5, across * width), down * height + 0.5), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    for panel in axes.flat:
        panel.axis("off")
    return figure, axes


def draw_map(axes: Axes, cells: NDArray[np.float64]) -> None:
    """Heat map of layers × heads; red and blue where scores have signs."""
    from matplotlib.ticker import MaxNLocator

    most = float(np.nanmax(np.abs(cells))) or 1.0
    signed = bool(np.nanmin(cells) < 0)
    image = axes.imshow(cells, cmap="RdBu_r" if signed else "viridis", vmin=-most * signed,
                        vmax=most, aspect="auto", origin="lower", interpolation="nearest")
    axes.axis("on")
    axes.set(xlabel="head")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.figure.colorbar(image, ax=axes, format="%.2g")


def _ffn_bars(connection: duckdb.DuckDBPyConnection, run: str, model: str) -> Figure | None:
    """A bar per layer for each score and number of shots, with a dot for every task."""
    from matplotlib.ticker import MaxNLocator

    rows = connection.sql(_SCORES, params=[run, model, "ffn"]).fetchall()
    if not rows:
        return None
    panels: dict[tuple[int | None, str], list[tuple[int, float]]] = {}
    for score, shots, layer, _, value in rows:
        panels.setdefault((shots, score), []).append((layer, value))
    dots: dict[tuple[int | None, str], list[tuple[int, float]]] = {}
    for score, shots, layer, value in connection.sql(_TASKS, params=[run, model]).fetchall():
        dots.setdefault((shots, score), []).append((layer, value))
    lines = _lines(panels)
    layers = 1 + max(row[2] for row in rows)
    width = float(np.clip(3 + 0.045 * layers, 3.3, 6))
    figure, axes = _panels(len(lines), max(map(len, lines)), width, 2.0)
    for line, keys in zip(axes, lines, strict=True):
        for place, key in zip(line, keys, strict=False):
            place.axis("on")
            place.bar(*zip(*panels[key], strict=True), color="lightsteelblue", width=0.8)
            place.plot(*zip(*dots.get(key, []), strict=True), "o", color="tab:blue",
                       markersize=2.5 if layers <= 16 else 1.2)
            place.axhline(0, color="black", linewidth=0.6)
            place.set_title(_title(key[1], key[0]), fontsize=9)
            place.set(xlabel="layer")
            place.xaxis.set_major_locator(MaxNLocator(integer=True))
            place.yaxis.set_major_formatter("{x:.2g}")
    figure.suptitle("scores of FFNs: mean over tasks, and each task")
    return figure


def _between_tasks(pairs: list[_Pair], called: str) -> Figure | None:
    """Correlation matrices of each score: tasks × tasks for each number of shots, shots × shots."""
    same = [pair for pair in pairs if pair.score == pair.other_score and pair.task is not None]
    scores = sorted({pair.score for pair in same}, key=_placed)
    if not scores:
        return None
    of_tasks = [pair for pair in same if pair.shots == pair.other_shots]
    of_shots = [pair for pair in same if pair.shots != pair.other_shots]
    columns = sorted({pair.shots or 0 for pair in of_tasks})
    size = float(np.clip(1.8 + 0.2 * len({pair.task for pair in same}), 2.4, 5))
    figure, axes = _panels(len(scores), len(columns) + bool(of_shots), size, size)
    for line, score in zip(axes, scores, strict=True):
        for place, shots in zip(line, columns, strict=False):
            _matrix(place, _title(score, shots), [
                (str(pair.task), str(pair.other_task), pair.spearman)
                for pair in of_tasks if (pair.score, pair.shots) == (score, shots)])
        _matrix(line[-1], f"{score}, across shots", [
            (str(pair.shots), str(pair.other_shots), pair.spearman)
            for pair in of_shots if pair.score == score])
    figure.suptitle(f"rank correlations of {called} (Spearman) between tasks,\nand between "
                    "numbers of shots (mean over tasks)", fontsize=9)
    return figure


def _between_scores(pairs: list[_Pair]) -> Figure | None:
    """Correlation matrices of scores × scores, of heads and of FFNs."""
    differ = [pair for pair in pairs if pair.score != pair.other_score]
    sites = [site for site in _CALLED if any(pair.site == site for pair in differ)]
    if not sites:
        return None
    figure, axes = _panels(1, len(sites), 4.6, 3.9)
    for place, site in zip(axes[0], sites, strict=True):
        _matrix(place, _CALLED[site], [(pair.score, pair.other_score, pair.spearman)
                                       for pair in differ if pair.site == site])
    figure.suptitle("rank correlations (Spearman) of scores, mean over tasks and numbers of shots")
    return figure


def _matrix(axes: Axes, title: str, pairs: list[tuple[str, str, float]]) -> None:
    """A symmetric matrix of mean correlations; what has none, as the diagonal, is left blank."""
    found: dict[tuple[str, str], list[float]] = {}
    for one, other, value in pairs:
        found.setdefault((one, other), []).append(value)
        found.setdefault((other, one), []).append(value)
    names = sorted({name for pair in found for name in pair}, key=_placed)
    if not names:
        return
    cells = np.full((len(names), len(names)), np.nan)
    for (one, other), values in found.items():
        cells[names.index(one), names.index(other)] = np.mean(values)
    axes.axis("on")
    axes.imshow(cells, cmap="RdBu_r", vmin=-1, vmax=1)
    font = float(np.clip(60 / len(names), 4.5, 9))
    for i, j in zip(*np.nonzero(~np.isnan(cells)), strict=True):
        axes.text(j, i, f"{cells[i, j]:.2f}".replace("0.", "."), ha="center", va="center",
                  fontsize=font, color=ON_DARK if abs(cells[i, j]) > 0.7 else ON_LIGHT)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_title(title, fontsize=9)
