"""Real Ray on this machine: distribution changes nothing, and a dead worker costs nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray
from pipeline.small import recipe, rows

import prunelib
from cluster import RayExecutor
from cluster.runtime import connect, disconnect
from prunelib.errors import UserError
from prunelib.models import ModelInfo
from prunelib.results.query import open_results
from prunelib.results.storage.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    """Two CPUs by Ray's books, whatever this machine has."""
    connect()
    yield
    disconnect()


@pytest.fixture(scope="module")
def inline(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("inline") / "r"
    prunelib.run(recipe(info), results)
    return results


def on_ray(info: ModelInfo, results: Path, workers: int) -> prunelib.RunReport:
    executor = RayExecutor(results, workers=workers)
    try:
        return prunelib.run(recipe(info), results, executor)
    finally:
        executor.close()


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.long), 2])
def test_any_number_of_workers_gives_the_same_bits(
    workers: int, info: ModelInfo, inline: Path, tmp_path: Path
) -> None:
    report = on_ray(info, tmp_path / "r", workers)
    assert not report.failed
    expected, found = rows(inline), rows(tmp_path / "r")
    for table in expected:
        assert found[table].equals(expected[table]), table
    used = open_results(tmp_path / "r").execute(
        "select count(distinct worker) from units where stage = 'attribute'").fetchone()
    assert used == (workers,)


def test_a_killed_worker_is_replaced_and_nothing_is_lost(
    info: ModelInfo, inline: Path, tmp_path: Path
) -> None:
    results = tmp_path / "r"
    killed: list[int] = []

    def kill() -> None:
        """SIGKILL a worker process once the first results are there."""
        while not list(results.glob("prompt_scores/*.parquet")):
            time.sleep(0.05)
        for pid in worker_pids():
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    report = on_ray(info, results, 2)
    thread.join()
    assert killed and not report.failed
    expected, found = rows(inline), rows(results)
    for table in expected:
        assert found[table].equals(expected[table]), table
    lost = open_results(results).execute(
        "select count(*) from units where status = 'failed'").fetchone()
    assert lost is not None and lost[0] >= 1


def worker_pids() -> list[int]:
    """Workers of this process's Ray; there may be others on the machine."""
    return [process.pid for process in psutil.Process().children(recursive=True)
            if process.name().startswith("ray::WorkerActor")]


def test_a_local_ray_listens_on_loopback_with_a_token() -> None:
    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_a_finished_run_does_not_need_ray(info: ModelInfo, inline: Path) -> None:
    executor = RayExecutor(inline, address="127.0.0.1:1")
    report = prunelib.run(recipe(info), inline, executor)
    assert report.units_done == 0


def test_a_cluster_that_is_not_there_is_a_user_error(info: ModelInfo, tmp_path: Path) -> None:
    disconnect()
    try:
        with pytest.raises(UserError, match=r"cannot reach the Ray cluster at 127.0.0.1:1"):
            prunelib.run(recipe(info), tmp_path / "r",
                         RayExecutor(tmp_path / "r", address="127.0.0.1:1"))
    finally:
        connect()


def test_results_are_committed_by_workers(info: ModelInfo, inline: Path) -> None:
    assert Store.open(inline).done("predictions")
