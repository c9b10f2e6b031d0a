"""The timeline of a run, of a real one and of hand-made attempts with known times."""

from __future__ import annotations

import datetime as dt
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest
from results_folder import NOON, RUN, Folder, rows

from prunelib.errors import UserError
from prunelib.results.figures.timeline import draw_timeline
from prunelib.results.query import open_results
from prunelib.results.timeline import Span, chrome_trace, timeline


def read(folder: Folder | Path) -> tuple[list[Span], str]:
    place = folder.root if isinstance(folder, Folder) else folder
    with open_results(place) as connection:
        ((run,),) = connection.sql("SELECT DISTINCT run FROM units").fetchall()
        return timeline(connection, run), run


def units_of(trace: dict[str, Any]) -> list[dict[str, Any]]:
    return [event for event in trace["traceEvents"]
            if event["ph"] == "X" and "status" in event.get("args", {})]


def check(trace: dict[str, Any]) -> None:
    """What the trace event format asks for, and that a worker does one thing at a time."""
    for event in trace["traceEvents"]:
        assert event["ph"] in "XM"
        assert all(isinstance(event[key], int) for key in ("ts", "dur", "pid", "tid"))
        assert event["ts"] >= 0 and event["dur"] >= 0
    alone = units_of(trace) + [e for e in trace["traceEvents"] if e.get("cat") == "wait"]
    alone.sort(key=lambda event: (event["tid"], event["ts"]))
    for _, events in groupby(alone, lambda event: event["tid"]):
        for one, other in pairwise(events):
            assert one["ts"] + one["dur"] <= other["ts"]


def test_a_real_run_is_told_whole(studied: Path) -> None:
    spans, run = read(studied)
    trace = chrome_trace(spans, run)
    check(trace)
    attempts = rows(studied, "SELECT unit_id, seconds, start_seconds, switch_seconds, started_at, "
                             "finished_at, gpus FROM units")
    assert sorted(e["args"]["unit_id"] for e in units_of(trace)) == sorted(
        row["unit_id"] for row in attempts)
    took = sum(row["seconds"] for row in attempts)
    assert sum(e["dur"] for e in units_of(trace)) / 1e6 == pytest.approx(took, rel=1e-3)
    for name in ("start", "switch"):
        events = [e for e in trace["traceEvents"] if e.get("cat") == name]
        known = [row[f"{name}_seconds"] for row in attempts if row[f"{name}_seconds"] is not None]
        assert len(events) == len(known) > 0
        assert sum(e["dur"] for e in events) / 1e6 == pytest.approx(sum(known), rel=1e-2)
    first = min(row["started_at"] for row in attempts)
    for span in spans:
        (row,) = (row for row in attempts if row["unit_id"] == span.unit_id)
        assert row["gpus"] == 0 or row["gpus"] == 1
        assert span.start == pytest.approx((row["started_at"] - first).total_seconds(), abs=1e-3)
        assert row["started_at"] + dt.timedelta(seconds=row["seconds"]) <= (
            row["finished_at"] + dt.timedelta(milliseconds=1))


def test_workers_have_lanes_nodes_and_waits(folder: Folder) -> None:
    for unit, worker, second, took in (("u1", "10.0.0.1:7", 0, 4), ("u2", "10.0.0.1:7", 10, 3),
                                       ("u3", "10.0.0.2:7", 1, 5), ("u4", "10.0.0.1:8", 2, 1)):
        folder.attempt(unit, "done", 1, worker=worker, seconds=float(took),
                       started_at=NOON + dt.timedelta(seconds=second))
    folder.attempt("model-x", "failed", 1, worker=None, seconds=0.0)
    folder.attempt("u5", "failed", 1, worker="none", seconds=0.0)
    folder.write()
    spans, run = read(folder)
    assert [(s.unit_id, s.start, s.end) for s in spans] == [
        ("u1", 0, 4), ("u2", 10, 13), ("u4", 2, 3), ("u3", 1, 6)]
    trace = chrome_trace(spans, run)
    check(trace)
    names = {(e["name"], e["pid"], e["tid"]): e["args"]["name"] for e in trace["traceEvents"]
             if e["ph"] == "M"}
    assert names["process_name", 1, 1] == names["process_name", 1, 2] == "10.0.0.1"
    assert names["process_name", 2, 3] == "10.0.0.2"
    assert names["thread_name", 1, 2] == "10.0.0.1:8"
    waits = [(e["ts"], e["dur"], e["tid"]) for e in trace["traceEvents"] if e.get("cat") == "wait"]
    assert waits == [(4_000_000, 6_000_000, 1)]


def test_attempts_whose_beginning_is_not_known_do_not_overlap(folder: Folder) -> None:
    """The driver was busy, and heard of the end of two units when a third one had ended."""
    folder.attempt("u1", "done", 1, seconds=10.0)
    folder.attempt("u2", "done", 1, seconds=20.0)
    folder.attempt("u3", "done", 1, seconds=5.0)
    folder.write()
    spans, run = read(folder)
    check(chrome_trace(spans, run))
    assert sorted(span.seconds for span in spans) == [5, 10, 20]
    assert spans[0].start == 0 and spans[-1].end == 35


def test_what_was_not_tried_has_no_timeline(folder: Folder) -> None:
    folder.attempt("model-x", "failed", 1, worker=None, seconds=0.0)
    folder.write()
    with pytest.raises(UserError, match="no unit of work"):
        read(folder)


def test_the_picture_has_a_lane_for_each_worker_and_a_bar_for_each_attempt(folder: Folder) -> None:
    for i in range(6):
        folder.attempt(f"u{i}", "failed" if i == 5 else "done", i, worker=f"10.0.0.1:{i % 2}",
                       seconds=30.0, stage="evaluate" if i % 2 else "attribute",
                       start_seconds=9.0 if i < 2 else None)
    folder.write()
    spans, run = read(folder)
    drawn = draw_timeline(spans, run)
    (axes,) = drawn.figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["10.0.0.1:0\nm",
                                                                      "10.0.0.1:1\nm"]
    assert axes.get_title() == f"{RUN}: 6 attempts at units, 2 workers"
    bars = [len(some.get_paths()) for some in axes.collections]
    assert sorted(bars) == [1, 1, 1, 3, 3]  # two starts, what failed, three of each worker
    (legend,) = drawn.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "attribute", "evaluate", "engine starts", "failed"]
    assert axes.get_xlabel().startswith("minutes")  # 5 of them and a half
    assert drawn.written("png")[:4] == b"\x89PNG"
