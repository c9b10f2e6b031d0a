"""What a run shows to Prometheus, by Ray's own exporter: units, their times, queues, workers.

Labels are models, stages, kinds and states: few values each, and nothing of any prompt.
"""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge, Histogram

from prunelib.pipeline.units.executor import Attempt

#: Seconds. Ray passes on how many times fell between two of these, and no time itself, so the sum
#: that Prometheus sees is an estimate.
_BOUNDARIES = [0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600]


class Metrics:
    """The numbers of one driver. Ray adds the prefix ``ray_`` and labels of session and node.

    Every method costs microseconds: Ray sends what was collected every few seconds.
    """

    def __init__(self) -> None:
        """Register the metrics with Ray, which has to be connected by the time one is set."""
        self._units = Counter(
            "prunelib_units", "attempts at units of work that ended; status done, failed, or "
            "retried: failed, and tried again", ("model", "stage", "status"))
        self._seconds = Histogram(
            "prunelib_unit_seconds", "wall-clock time of an attempt that did its unit",
            _BOUNDARIES, ("model", "stage"))
        self._queued = Gauge(
            "prunelib_queued_units", "units that wait for a worker", ("kind", "model"))
        self._workers = Gauge("prunelib_workers", "worker processes by state", ("state",))

    def attempt(self, attempt: Attempt) -> None:
        """An attempt at a unit ended."""
        labels = {"model": attempt.unit.model.id, "stage": attempt.unit.stage}
        status = "done" if attempt.done else "retried" if attempt.again else "failed"
        self._units.inc(1, labels | {"status": status})
        if attempt.done:
            self._seconds.observe(attempt.seconds, labels)

    def queued(self, kind: str, model: str, units: int) -> None:
        """So many units of a model wait for a worker of a kind (``torch``, ``vllm``)."""
        self._queued.set(units, {"kind": kind, "model": model})

    def workers(self, state: str, count: int) -> None:
        """So many workers are in a state (``busy``, ``idle``, ``starting``)."""
        self._workers.set(count, {"state": state})
