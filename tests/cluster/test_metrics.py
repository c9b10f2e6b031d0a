"""Metrics as Prometheus would scrape them from a real Ray."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import pytest
import ray

from cluster.metrics import Metrics
from cluster.runtime import connect, disconnect
from prunelib.models import ModelInfo
from prunelib.pipeline.stages.attribution import ScoreJob
from prunelib.pipeline.units.executor import Attempt
from prunelib.pipeline.units.prompts import PromptsRef, TaskRef
from prunelib.pipeline.units.unit import Unit
from prunelib.recipe.attribution import ObjectiveSpec

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def local_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of the metrics of a Ray that reports them every half second."""
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "500")
    disconnect()
    connect()
    (node,) = ray.nodes()
    yield f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    disconnect()


def scrape(address: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """(name, labels that prunelib sets) → value, of prunelib's metrics."""
    with urllib.request.urlopen(address, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        if match := re.fullmatch(r"ray_(prunelib_\w+)\{(.*)\} (\S+)", line):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
            own = {k: v for k, v in labels.items()
                   if k in ("model", "stage", "status", "kind", "state", "le")}
            found[match[1], frozenset(own.items())] = float(match[3])
    return found


def test_prometheus_finds_units_times_queues_and_workers(local_ray: str, info: ModelInfo) -> None:
    prompts = PromptsRef(TaskRef("en_fr", "d"), "attribute", 2, 0, (0, 1, 2), "arrow")
    job = ScoreJob("float32", ObjectiveSpec(), "d", None, prompts, (0, 1), "weight")
    done = Attempt(Unit(info, job), "w", 1, 2.5, 100.0)
    metrics = Metrics()
    for attempt in (done, done, replace(done, error_kind="UnitError"),
                    replace(done, error_kind="EngineDeadError", again=True)):
        metrics.attempt(attempt)
    metrics.queued("torch", info.id, 7)
    metrics.workers("busy", 2)
    metrics.workers("busy", 1)
    here = {("model", info.id), ("stage", "attribute")}
    expected = {
        ("prunelib_units_total", frozenset(here | {("status", "done")})): 2,
        ("prunelib_units_total", frozenset(here | {("status", "failed")})): 1,
        ("prunelib_units_total", frozenset(here | {("status", "retried")})): 1,
        ("prunelib_unit_seconds_count", frozenset(here)): 2,
        ("prunelib_unit_seconds_bucket", frozenset(here | {("le", "1.0")})): 0,
        ("prunelib_unit_seconds_bucket", frozenset(here | {("le", "5.0")})): 2,
        ("prunelib_queued_units", frozenset({("kind", "torch"), ("model", info.id)})): 7,
        ("prunelib_workers", frozenset({("state", "busy")})): 1,
    }
    deadline = time.monotonic() + 20
    while not expected.items() <= (found := scrape(local_ray)).items():
        assert time.monotonic() < deadline, [expected.items() - found.items(), found]
        time.sleep(0.5)

    started = time.perf_counter()
    for _ in range(1000):
        metrics.attempt(done)
    assert (time.perf_counter() - started) / 1000 < 200e-6  # two metrics, some 20 µs here
