"""Workers that hang, that die one after the other, that are late; disks that refuse for a while."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kills import STAGES, disturb, disturb_stages
from pipeline.small import recipe, rows

import prunelib
from cluster import RayExecutor, memory
from cluster import executor as module
from cluster.executor import MAX_DEATHS
from cluster.runtime import connect, disconnect
from prunelib.models import ModelInfo, describe
from prunelib.pipeline.stages.canary import CanaryJob
from prunelib.pipeline.units.executor import Attempt
from prunelib.pipeline.units.prompts import PromptsRef, TaskRef
from prunelib.pipeline.units.unit import Unit, Workplace
from prunelib.pipeline.units.worker import Worker
from prunelib.results.storage.store import Store
from prunelib.tasks import get_task

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    connect()
    yield
    disconnect()


@pytest.fixture
def executor(local_ray: None, tmp_path: Path) -> Iterator[RayExecutor]:
    Store.open(tmp_path / "r")
    made = RayExecutor(tmp_path / "r", workers=1)
    yield made
    made.close()


def canary(info: ModelInfo, index: int) -> Unit:
    from prunelib.interventions.ablation import Ablation

    task = get_task("vowel_counting")
    prompts = PromptsRef(TaskRef(task.name, task.digest), "search", 3, 0, (0,), "arrow")
    return Unit(info, CanaryJob("float32", prompts, Ablation.of_layer(0, [index])))


def all_attempts(executor: RayExecutor, units: int) -> list[Attempt]:
    """Every attempt until so many units had their last one."""
    found: list[Attempt] = []
    while sum(not attempt.again for attempt in found) < units:
        attempt = executor.wait(60)
        assert attempt is not None, "nothing ended for a minute"
        found.append(attempt)
    return found


def once(executor: RayExecutor, state: str, act: Callable[[int], None]) -> threading.Thread:
    """``act`` on the process of the first worker that reaches ``state``."""

    def watch() -> None:
        while not (there := [s for s in list(executor._processes) if s.state == state]):
            time.sleep(0.01)
        act(int(executor._processes[there[0]].name.rpartition(":")[2]))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_a_hung_worker_is_replaced(
    info: ModelInfo, executor: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor.submit(canary(info, 0))
    thread = once(executor, "busy", lambda pid: os.kill(pid, signal.SIGSTOP))
    while thread.is_alive():
        assert executor.wait(0.1) is None
    monkeypatch.setattr(module, "HUNG_SECONDS", 1.0)
    hung = executor.wait(30)
    monkeypatch.undo()
    assert hung is not None and hung.again and hung.error_kind == "Hung"
    (done,) = all_attempts(executor, 1)
    assert done.done and done.attempt == 2


def test_a_model_that_kills_every_worker_is_given_up(
    info: ModelInfo, executor: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not all of its units are tried, each three times; other models go on."""
    monkeypatch.setattr(module, "start_worker", dying_worker(info))
    broken = describe(shutil.copytree(info.path, tmp_path / "broken").as_posix())
    (Path(broken.path) / "config.json").write_text((Path(broken.path) / "config.json").read_text()
                                                   + "\n")
    describe.cache_clear()
    broken = describe(broken.path)
    for index in range(40):
        executor.submit(canary(broken, index))
    executor.submit(canary(info, 0))
    found = all_attempts(executor, 41)
    failed = [a for a in found if not a.again and not a.done]
    assert {a.unit.model.id for a in failed} == {broken.path} and len(failed) == 40
    assert sum(a.worker == "none" for a in failed) >= 40 - MAX_DEATHS
    assert "given up, since 4 workers in a row died" in str(failed[-1].error_text)


def dying_worker(good: ModelInfo) -> Callable[..., object]:
    """Workers that are killed as soon as they are given a unit of any model but ``good``."""
    import ray

    @ray.remote(max_restarts=0, max_task_retries=0)
    class Dying:
        def __init__(self, results: str) -> None:
            self._results = results

        def ready(self) -> str:
            return f"dying:{os.getpid()}"

        def perform(self, unit: Unit, number: int, batch_halvings: int) -> Attempt:
            if unit.model.weights_digest != good.weights_digest:
                os.kill(os.getpid(), signal.SIGKILL)
            Worker(Store.open(self._results)).perform(unit)
            return Attempt(unit, "good", number, 0.0, 0.0)

    return lambda results, need, node: Dying.options(num_cpus=1).remote(results)  # type: ignore[attr-defined]


def test_a_late_worker_does_no_harm(
    info: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers finish the same unit: one set of rows, whoever was last."""
    store, unit = Store.open(tmp_path / "r"), canary(info, 3)
    slow, quick = Worker(store), Worker(Store.open(tmp_path / "r"))
    real, done = CanaryJob.run, []

    def late(job: CanaryJob, worker: Workplace, unit: Unit) -> list[dict[str, object]]:
        computed = real(job, worker, unit)
        if worker is slow:
            done.append(quick.perform(unit))
            done.append(store.read("canaries").to_pylist())
        return computed

    monkeypatch.setattr(CanaryJob, "run", late)
    slow.perform(unit)
    assert store.done("canaries") == {unit.id}
    assert store.read("canaries").to_pylist() == done[1] and len(done[1]) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of its own, of 64 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", disk):
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def mount(*arguments: str | Path) -> int:
    return subprocess.run(["mount", *arguments], capture_output=True).returncode


def fill(disk: Path) -> None:
    """Fill a disk to the last byte."""
    with (disk / "filler").open("wb", buffering=0) as filler:
        for size in (1 << 20, 1):
            with contextlib.suppress(OSError):
                while filler.write(b"x" * size) == size:
                    pass


def test_a_disk_that_is_full_and_then_read_only_for_a_while(
    info: ModelInfo, local_ray: None, small_disk: Path, tmp_path: Path
) -> None:
    results, expected = small_disk / "r", tmp_path / "expected"
    prunelib.run(recipe(info), expected)

    def disturb_disk() -> None:
        wait_for(lambda: list((results / "prompt_scores").glob("*.parquet")))
        fill(small_disk)
        time.sleep(4)
        (small_disk / "filler").unlink()
        wait_for(lambda: list((results / "predictions").glob("*.parquet")))
        assert mount("-o", "remount,ro", small_disk) == 0
        time.sleep(4)
        assert mount("-o", "remount,rw", small_disk) == 0

    thread = threading.Thread(target=disturb_disk, daemon=True)
    thread.start()
    executor = RayExecutor(results)
    try:
        report = prunelib.run(recipe(info), results, executor)
    finally:
        executor.close()
    thread.join(10)
    assert report.complete and not thread.is_alive()
    found, undisturbed = rows(results), rows(expected)
    for table in undisturbed:
        assert found[table].equals(undisturbed[table]), table


def wait_for(there: Callable[[], object]) -> None:
    while not there():
        time.sleep(0.02)


def test_memory_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.time, "sleep", lambda seconds: None)
    there = iter([1, 2, 5])
    memory.wait_until_free(4, lambda: next(there))
    assert list(there) == []
    monkeypatch.setattr(memory, "PATIENCE", -1.0)
    with pytest.raises(MemoryError, match=r"0.0 GiB are needed and 0.0 GiB free"):
        memory.wait_until_free(4, lambda: 1)
    assert memory.free_memory() > 1 << 20


@pytest.mark.long
def test_a_killed_head_changes_nothing(info: ModelInfo, tmp_path: Path) -> None:
    """The driver ends without it; with a new head the same command goes on."""
    prunelib.run(recipe(info), tmp_path / "expected")
    tally = disturb(recipe(info), tmp_path / "expected", tmp_path, kills=1, seed=0,
                    shares={"head": 1.0})
    assert tally.killed == {"head": 1} and tally.starts >= 2 and tally.completed == 1
    assert (tally.lost_files, tally.different_tables) == (0, 0)


@pytest.mark.long
def test_random_kills_change_nothing(info: ModelInfo, tmp_path: Path) -> None:
    prunelib.run(recipe(info), tmp_path / "expected")
    tally = disturb(recipe(info), tmp_path / "expected", tmp_path, kills=4, seed=3)
    assert tally.killed.total() == 4 and tally.completed >= 1
    assert (tally.lost_files, tally.different_tables) == (0, 0)


@pytest.mark.long
def test_every_part_of_ray_may_die_in_some_stage(info: ModelInfo, tmp_path: Path) -> None:
    prunelib.run(recipe(info), tmp_path / "expected")
    parts = ("raylet", "worker", "gcs", "agent")
    tally = disturb_stages(recipe(info), tmp_path / "expected", tmp_path,
                           list(zip(parts, STAGES, strict=True)))
    assert tally.killed.total() == 4 and tally.completed == 1
    assert (tally.lost_files, tally.different_tables) == (0, 0)
