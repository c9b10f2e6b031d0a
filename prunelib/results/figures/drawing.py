"""What a figure of a report is, and how it is written."""

from __future__ import annotations

import io
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Every file format in which a figure is written.
FORMATS = ("svg", "pdf", "png")
_PROCESSES = 4
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
        source: the figure, or what makes it, for whatever process.
    """

    name: str
    section: str
    title: str
    source: Figure | Callable[[], Figure]
    _written: dict[str, bytes] = field(default_factory=dict, repr=False)
    _begun: list[Future[dict[str, bytes]]] = field(default_factory=list, repr=False)

    @cached_property
    def figure(self) -> Figure:
        return _made(self.source)

    def begin(self, processes: Executor) -> None:
        """Have all files written by another process."""
        with suppress(BrokenProcessPool):  # killed, for its memory say: they are written here
            self._begun.append(processes.submit(_every_format, self.source))

    def written(self, kind: str) -> bytes:
        """The figure as a file of one of :data:`FORMATS`: the same bytes every time."""
        if self._begun:
            with suppress(BrokenProcessPool):
                self._written.update(self._begun.pop().result())
        if kind not in self._written:
            self._written[kind] = _saved(self.figure, kind)
        return self._written[kind]


def _made(source: Figure | Callable[[], Figure]) -> Figure:
    with drawing():
        return source() if callable(source) else source


def _every_format(source: Figure | Callable[[], Figure]) -> dict[str, bytes]:
    figure = _made(source)
    return {kind: _saved(figure, kind) for kind in FORMATS}


def _saved(figure: Figure, kind: str) -> bytes:
    data = io.BytesIO()
    dated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}[kind]
    with drawing():
        figure.savefig(data, format=kind, dpi=130, metadata=dated)
        # It has its layout now. As long as there is an engine, even "none", it draws twice.
        figure.set_layout_engine(None)
    return data.getvalue()


@contextmanager
def processes() -> Iterator[Executor]:
    """Processes for :meth:`Drawing.begin`, which get ready meanwhile; nothing runs on after it."""
    count = min(_PROCESSES, os.cpu_count() or 1)
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_prepare)
    try:
        for _ in range(count):
            pool.submit(os.getpid)  # each starts a process, if none is idle
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare() -> None:
    """Take the time to import what is needed; Ctrl-C is for the process that asked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import matplotlib.backends.backend_pdf
    import matplotlib.backends.backend_svg
    import matplotlib.figure  # noqa: F401


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
