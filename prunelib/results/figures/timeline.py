"""The figure of a run's timeline: a lane for each worker, a colour for each stage."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from textwrap import shorten
from typing import TYPE_CHECKING

from prunelib.results.figures.drawing import Drawing, file_name
from prunelib.results.timeline import Span
from prunelib.vocabulary import STAGES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: dict[str, str] = dict(zip(STAGES, (
    "tab:gray", "tab:blue", "tab:orange", "tab:purple", "tab:green", "tab:brown"), strict=True))
#: Bars from which on a file holds them as pixels; lanes that have a name each; characters of one.
_PIXELS, _NAMED, _NAME = 5000, 60, 40
#: What failed is at least this part of the whole wide, so that it is seen.
_VISIBLE = 400
#: Height of a lane in inches, of which a lane of many is a smaller part.
_LANE, _HIGHEST = 0.34, 14.0
#: Starts of engines, and what failed, over the colour of their stage.
_START, _FAILED = "#111111", "#d62728"


def draw_timeline(spans: list[Span], run: str) -> Drawing:
    """The attempts of :func:`prunelib.results.timeline.timeline` over time."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    lanes = [list(some) for _, some in groupby(spans, lambda span: span.worker)]
    figure = Figure(figsize=(9.0, min(_HIGHEST, 1.2 + _LANE * len(lanes))), layout="constrained")
    axes = figure.subplots()
    total = max(span.end for span in spans)
    unit, name = _time_unit(total)
    for place, lane in enumerate(lanes):
        _lane(axes, place, lane, unit, total / _VISIBLE, rasterized=len(spans) > _PIXELS)
    if len(lanes) <= _NAMED:
        axes.set_yticks(range(len(lanes)), [_label(lane) for lane in lanes])
    axes.set(xlabel=f"{name} since the first unit", xlim=(0, None),
             ylim=(len(lanes) - 0.5, -0.5), title=f"{run}: {len(spans)} attempts at units, "
             f"{len(lanes)} worker{'s' * (len(lanes) != 1)}")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    shown = [Patch(color=colour, label=stage) for stage, colour in _COLOURS.items()
             if any(span.stage == stage for span in spans)]
    if any(span.start_seconds for span in spans):
        shown.append(Patch(color=_START, label="engine starts"))
    if any(span.status == "failed" for span in spans):
        shown.append(Patch(color=_FAILED, label="failed"))
    figure.legend(handles=shown, loc="outside lower center", ncols=len(shown), frameon=False)
    return Drawing(file_name(run, "timeline"), "costs", "which worker did what when", figure)


def _lane(axes: Axes, place: int, lane: list[Span], unit: float, least: float, rasterized: bool
          ) -> None:
    bars: dict[tuple[str, float, float], list[tuple[float, float]]] = defaultdict(list)
    for span in lane:
        bars[_COLOURS[span.stage], -0.35, 0.7].append((span.start / unit, span.seconds / unit))
        if span.start_seconds:
            bars[_START, 0.2, 0.15].append((span.start / unit, span.start_seconds / unit))
        if span.status == "failed":
            bars[_FAILED, -0.35, 0.25].append((span.start / unit, max(least, span.seconds) / unit))
    for (colour, low, height), times in bars.items():
        axes.broken_barh(times, (place + low, height), facecolor=colour, linewidth=0,
                         rasterized=rasterized)


def _label(lane: list[Span]) -> str:
    models = {span.model for span in lane}
    name = lane[0].worker
    return f"{name}\n{shorten(models.pop(), _NAME, placeholder='…')}" if len(models) == 1 else name


def _time_unit(seconds: float) -> tuple[float, str]:
    if seconds < 180:
        return 1.0, "seconds"
    return (60.0, "minutes") if seconds < 3 * 3600 else (3600.0, "hours")
