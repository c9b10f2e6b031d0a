"""What a figure of a report is, and how it is written."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Every file format in which a figure is written.
FORMATS = ("pdf", "svg", "png")
#: Names of models are no mathematics; ids in an SVG must not differ from one report to the next.
_SETTINGS: dict[Any, Any] = {"text.parse_math": False, "svg.hashsalt": "prunelib", "font.size": 9.0}
#: Text on dark and on light cells of a map: not quite white and black, so that a dark page leaves
#: it as it is.
ON_DARK, ON_LIGHT = "#fafafa", "#111111"
#: Figures are black on white; on a dark page they are light on dark.
_DARK = """@media (prefers-color-scheme: dark) {
svg {fill: #e4e6ea}
[style*="fill: #ffffff"] {fill: #16191d !important}
[style*="stroke: #000000"] {stroke: #c4c8ce !important}
}"""


@dataclass(frozen=True)
class Drawing:
    """A figure of a run.

    Attributes:
        name: name of its files, without their suffix; each of a run has another.
        section: part of a report that it belongs to.
        title: what it shows, in words.
    """

    name: str
    section: str
    title: str
    figure: Figure
    _written: dict[str, bytes] = field(default_factory=dict, repr=False)

    def written(self, kind: str) -> bytes:
        """The figure as a file of one of :data:`FORMATS`: the same bytes every time."""
        if kind not in self._written:
            data = io.BytesIO()
            dated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}[kind]
            with drawing():
                self.figure.savefig(data, format=kind, dpi=130, metadata=dated)
                # It has its layout now. As long as there is an engine, even "none", it draws twice.
                self.figure.set_layout_engine(None)
            self._written[kind] = data.getvalue()
        return self._written[kind]


@contextmanager
def drawing() -> Iterator[None]:
    """Settings under which figures are made and written."""
    from matplotlib import rc_context

    with rc_context(_SETTINGS):
        yield


def for_page(svg: bytes) -> bytes:
    """An SVG for a page that is light or dark, as the reader's system asks for."""
    return svg.replace(b"</style>", f"\n{_DARK}</style>".encode(), 1)


def file_name(*parts: str) -> str:
    """A name of a file from names of runs, models and methods."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(Path(part).name for part in parts))
