"""The timeline of a run: which worker did which unit when, and what it waited for.

From the table ``units`` alone. An attempt began when its worker says so; of one that does not say
(its worker died, or an earlier version ran it) the end is known to within the time that the driver
took to hear of it, and lies before the worker's next beginning.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

from prunelib.errors import UserError

if TYPE_CHECKING:
    import duckdb

# Without a worker there was no work: a model that cannot be used, units that were given up.
_SPANS = """
SELECT worker, stage, model, detail, unit_id, status, attempt, seconds, start_seconds,
       switch_seconds, gpus, error_kind, started_at, finished_at
FROM units WHERE run = $1 AND worker IS NOT NULL AND worker <> 'none'
ORDER BY worker, coalesce(started_at, finished_at), finished_at
"""
#: Seconds between two units of a worker from which on it is said to wait.
_WAIT = 1e-3


@dataclass(frozen=True)
class Span:
    """An attempt at a unit.

    Attributes:
        start: when it began, in seconds since the first attempt of the run.
        seconds: how long it took, ``start_seconds`` and ``switch_seconds`` of it (None: none).
    """

    worker: str
    stage: str
    model: str
    detail: str
    unit_id: str
    status: str
    attempt: int
    start: float
    seconds: float
    start_seconds: float | None
    switch_seconds: float | None
    gpus: int | None
    error_kind: str | None

    @property
    def end(self) -> float:
        """When it ended, in seconds since the first attempt of the run."""
        return self.start + self.seconds

    @property
    def node(self) -> str:
        """The machine of its worker."""
        return _node(self.worker)


def _node(worker: str) -> str:
    """The machine of a worker, whose name is ``address:process``."""
    return worker.rpartition(":")[0] or worker


def timeline(connection: duckdb.DuckDBPyConnection, run: str) -> list[Span]:
    """The attempts of a run: node by node, there the first worker first, of each one in order.

    Raises :class:`UserError` if there are none.
    """
    rows = connection.sql(_SPANS, params=[run]).to_arrow_table().to_pylist()
    if not rows:
        raise UserError(f"{run} has no unit of work that was tried: what it needed was there")
    spans: list[tuple[datetime, dict[str, Any]]] = []
    for _, some in groupby(rows, lambda row: row["worker"]):
        after: datetime | None = None
        for row in reversed(list(some)):
            took = timedelta(seconds=row["seconds"])
            end = row["started_at"] + took if row["started_at"] else row["finished_at"]
            after = min(end, after or end) - took
            spans.append((after, row))
    begun: dict[str, datetime] = {}
    for start, row in spans:
        begun[row["worker"]] = min(start, begun.get(row["worker"], start))
    spans.sort(key=lambda span: (_node(span[1]["worker"]), begun[span[1]["worker"]],
                                 span[1]["worker"], span[0]))
    zero = min(start for start, _ in spans)
    known = Span.__dataclass_fields__.keys()
    return [Span(start=(start - zero).total_seconds(),
                 **{name: row[name] for name in known & row.keys()}) for start, row in spans]


def chrome_trace(spans: list[Span], run: str) -> dict[str, Any]:
    """A timeline in Chrome's trace event format, which Perfetto and ``chrome://tracing`` show.

    A node is a process and a worker a thread. Within a unit, the start of an engine and the
    switch to another intervention stand at its beginning. Between two units a worker waits.
    """
    nodes = {node: i for i, node in enumerate(sorted({span.node for span in spans}), 1)}
    events: list[dict[str, Any]] = []
    for number, (worker, some) in enumerate(groupby(spans, lambda span: span.worker), 1):
        own = list(some)
        place = {"pid": nodes[own[0].node], "tid": number}
        for what, name in (("process_name", own[0].node), ("thread_name", worker)):
            events.append({"ph": "M", "name": what, "ts": 0, "dur": 0, **place,
                           "args": {"name": name}})
        for span in own:
            events += _events(span, place)
        events += [{"ph": "X", "name": "waits", "cat": "wait", **_time(one.end, other.start),
                    **place} for one, other in pairwise(own) if other.start - one.end > _WAIT]
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"run": run}}


def _events(span: Span, place: dict[str, int]) -> list[dict[str, Any]]:
    args = {"unit_id": span.unit_id, "model": span.model, "detail": span.detail,
            "status": span.status, "attempt": span.attempt, "gpus": span.gpus}
    if span.error_kind:
        args["error"] = span.error_kind
    events = [{"ph": "X", "name": f"{span.stage} {span.model}", "cat": span.stage,
               **_time(span.start, span.end), **place, "args": args}]
    for name, cat, took in (("engine starts", "start", span.start_seconds),
                            ("switches", "switch", span.switch_seconds)):
        if took is not None:
            end = min(span.end, span.start + took)
            events.append({"ph": "X", "name": name, "cat": cat, **_time(span.start, end), **place,
                           "args": {"unit_id": span.unit_id}})
    return events


def _time(start: float, end: float) -> dict[str, int]:
    """In whole microseconds, so that what follows on each other does not overlap."""
    ts = int(start * 1e6)
    return {"ts": ts, "dur": int(end * 1e6) - ts}
