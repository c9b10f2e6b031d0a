"""Figures that other processes write."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from multiprocessing.process import BaseProcess

from matplotlib.figure import Figure

from prunelib.results.figures.drawing import FORMATS, Drawing, drawing, processes


def line(*values: float) -> Figure:
    figure = Figure(layout="constrained")
    figure.subplots().plot(values, label="$x_1$")
    figure.legend()
    return figure


def later() -> Drawing:
    return Drawing("name", "section", "title", partial(line, 1, 3, 2))


def running(pool: object) -> Iterable[BaseProcess]:
    return list(pool._processes.values())  # type: ignore[attr-defined, no-any-return]


def test_another_process_writes_the_same_files() -> None:
    with processes() as pool:
        with drawing():
            made = Drawing("name", "section", "title", line(1, 3, 2))
        there, here = later(), later()
        for one in (there, made):
            one.begin(pool)
        for kind in FORMATS:
            assert there.written(kind) == here.written(kind) == made.written(kind)
        ended = running(pool)
    assert not any(process.is_alive() for process in ended)


def test_what_a_killed_process_leaves_is_written_here() -> None:
    with processes() as pool:
        begun, unbegun = later(), later()
        begun.begin(pool)
        for process in running(pool):
            process.kill()
            process.join()
        assert begun.written("svg").startswith(b"<?xml")
        unbegun.begin(pool)
        assert unbegun.written("png")[1:4] == b"PNG"
