"""Simulated nodes: models on three nodes, one of which is lost and comes back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray
from pipeline.small import recipe, rows
from ray._private.authentication_test_utils import reset_auth_token_state
from ray.cluster_utils import Cluster
from tiny_llama import build

import prunelib
from cluster import RayExecutor
from cluster.runtime import connect
from prunelib.models import ModelInfo
from prunelib.recipe.recipe import Recipe
from prunelib.results.query import open_results

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head without work and two workers with one CPU each, all on loopback, with a token."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Else Ray takes every form of localhost for the machine's outside address.
    monkeypatch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
    reset_auth_token_state()
    head = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    monkeypatch.undo()
    reset_auth_token_state()


@pytest.mark.long
@pytest.mark.parametrize(("split", "gpus"), [("auto", [1, 1]), (2, [2])])
def test_gpus_by_rays_books(
    split: int | str, gpus: list[int], info: ModelInfo, nodes: Cluster, tmp_path: Path
) -> None:
    """Two GPUs that are not there: workers are given one each or both, and compute on the CPU."""
    nodes.add_node(num_cpus=1, num_gpus=2, node_ip_address="127.0.0.1")
    asked = recipe(info, models=[{"id": info.path, "tensor_parallel": split}])
    prunelib.run(asked, tmp_path / "inline")
    executor = RayExecutor(tmp_path / "r", address=nodes.address)
    assert prunelib.run(asked, tmp_path / "r", executor).complete
    booked = [slot.need.gpus for slot in executor._scheduler.slots]
    executor.close()
    assert booked == gpus
    expected, found = rows(tmp_path / "inline"), rows(tmp_path / "r")
    for table in expected:
        assert found[table].equals(expected[table]), table


def with_models(count: int, info: ModelInfo, folder: Path) -> Recipe:
    """A recipe for so many tiny models, with other weights each."""
    ids = [info.path, *(build(folder / f"m{seed}", seed).path for seed in range(1, count))]
    return recipe(info, models=ids)


def wait_for_files(results: Path, table: str, count: int, running: Future[Any]) -> None:
    while len(list((results / table).glob("*.parquet"))) < count and not running.done():
        time.sleep(0.05)
    assert not running.done()


def lose(node: Any) -> None:
    """As if somebody pulled the plug: Ray has to find out by itself."""
    for processes in node.all_processes.values():
        for process in processes:
            os.kill(process.process.pid, signal.SIGKILL)


@pytest.mark.parametrize("models", [1, pytest.param(3, marks=pytest.mark.long)])
def test_models_survive_the_loss_of_a_node(
    models: int, info: ModelInfo, nodes: Cluster, tmp_path: Path
) -> None:
    for _ in range(2):
        nodes.add_node(num_cpus=1, node_ip_address="127.0.0.1")
    wanted = with_models(models, info, tmp_path)
    prunelib.run(wanted, tmp_path / "inline")
    results = tmp_path / "r"
    connect(nodes.address)
    executor = RayExecutor(results, address=nodes.address)
    with ThreadPoolExecutor(1) as thread:  # nodes can be added by the main thread only
        running = thread.submit(prunelib.run, wanted, results, executor)
        wait_for_files(results, "prompt_scores", 4, running)
        lose(nodes.list_all_nodes()[-1])
        wait_for_files(results, "predictions", 1, running)
        nodes.add_node(num_cpus=1, node_ip_address="127.0.0.1")
        report = running.result()
    executor.close()
    assert report.complete
    expected, found = rows(tmp_path / "inline"), rows(results)
    for table in expected:
        assert found[table].equals(expected[table]), table
    said = open_results(results).execute(
        "select count(distinct worker) from units where status = 'done'").fetchone()
    assert said is not None and said[0] >= 3
    assert os.environ["RAY_AUTH_MODE"] == "token"
