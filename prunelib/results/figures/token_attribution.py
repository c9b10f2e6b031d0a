"""A picture of a prompt whose tokens are coloured by what they are worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunelib.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

    from prunelib.attribution.explanation import Explanation

#: Characters of a line, after which the prompt is wrapped; and those that a panel's title takes.
_WIDTH, _TITLE = 64, 28
#: Inches of a character and of a line.
_CELL = (0.135, 0.36)


def visible(token: str) -> str:
    """A token's text with its blanks and line ends to be seen."""
    return token.replace("\n", "↵").replace(" ", "␣") or "∅"


def draw_tokens(explanation: Explanation, title: str, out: Path) -> None:
    """Write a picture of the prompt, once per view: red tokens raise F, blue ones lower it.

    All views share one scale. The file's suffix chooses the format. Raises :class:`UserError`
    if it cannot be written.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    places, columns, lines = _places(explanation.tokens)
    most = max(float(np.abs(view.found.scores).max()) for view in explanation.views) or 1.0
    colours = ScalarMappable(Normalize(-most, most), "RdBu_r")
    count = len(explanation.views)
    across = count if count * columns <= _WIDTH else 1
    down = count // across
    figure = Figure(figsize=(across * columns * _CELL[0] + 1.6,
                             down * (lines * _CELL[1] + 0.6) + 0.7), layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for axes, view in zip(panels, explanation.views, strict=True):
        _prompt(axes, explanation.tokens, view.found.scores, places, colours)
        axes.set(xlim=(0, columns), ylim=(lines, 0))
        axes.set_title(f"{view.name}: predicts {view.prediction!r}\nF = {view.found.end:.3g} "
                       f"({view.found.start:.3g} at the baseline)", loc="left",
                       fontsize=10, parse_math=False)
    figure.colorbar(colours, ax=panels, label="attribution")
    figure.suptitle(f"{title}\nF: {explanation.subject}", fontsize=10, parse_math=False)
    try:
        figure.savefig(out, dpi=130)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error


def _places(tokens: tuple[str, ...]) -> tuple[list[tuple[int, int]], int, int]:
    """Column and line of each token, and the number of columns and of lines.

    A line end begins a new line.
    """
    places, column, line, widest = [], 0, 0, _TITLE
    for token in tokens:
        if column and column + len(visible(token)) > _WIDTH:
            column, line = 0, line + 1
        places.append((column, line))
        column += len(visible(token))
        widest = max(widest, column)
        if "\n" in token:
            column, line = 0, line + 1
    return places, widest, places[-1][1] + 1


def _prompt(axes: Axes, tokens: tuple[str, ...], scores: NDArray[np.float64],
            places: list[tuple[int, int]], colours: ScalarMappable) -> None:
    """One coloured box per token, with its text."""
    from matplotlib.patches import Rectangle

    rgba = colours.to_rgba(scores)
    for token, colour, (column, line) in zip(tokens, rgba, places, strict=True):
        shown = visible(token)
        axes.add_patch(Rectangle((column, line), len(shown), 1, facecolor=colour,
                                 edgecolor="white", linewidth=0.5))
        axes.text(column + len(shown) / 2, line + 0.5, shown, ha="center", va="center",
                  family="monospace", fontsize=10, parse_math=False,
                  color="white" if sum(colour[:3]) < 1.5 else "black")
    axes.axis("off")
