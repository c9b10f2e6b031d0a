"""Runs that a user, the system or the terminal disturbs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import call
from pipeline.small import recipe

import prunelib
from jobs import stopping
from prunelib.models import ModelInfo
from prunelib.pipeline.reporting import Lines
from prunelib.pipeline.units.executor import Attempt

SHELL = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}


def start(good: Path, results: Path, *options: str, **settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", "run", str(good), "--results", str(results), *options],
        env=SHELL | settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_in_a_line_that_says_how_to_go_on(
    number: signal.Signals, good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "with blank"
    with start(good, results, "--inline") as running:
        assert running.stdout is not None and running.stderr is not None
        assert "units" in running.stdout.readline()
        running.send_signal(number)
        said = running.stderr.read()
        assert running.wait() == 130
    assert said.count("\n") == 1 and said.startswith("stopped; what is done is kept. To go on: ")
    assert f"run {good} --results '{results}'" in said
    (status,) = prunelib.open_results(results).sql("select status from runs").fetchall()
    assert status == ("interrupted",)
    assert call("run", good, "--results", results, "--inline") == 0


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_so_does_one_whose_workers_have_begun(
    number: signal.Signals, good: Path, tmp_path: Path
) -> None:
    """Ray has a handler of its own, which prints where native code was."""
    with start(good, tmp_path / "r") as running:
        assert running.stderr is not None
        while not list((tmp_path / "r" / "prompt_scores").glob("*.parquet")):
            assert running.poll() is None
            time.sleep(0.01)
        running.send_signal(number)
        said = running.stderr.read()
        assert running.wait() == 130
    assert said.count("\n") == 1 and said.startswith("stopped; what is done is kept."), said


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_long_wait_for_ray_at_once(number: signal.Signals) -> None:
    """Ray runs the handler in native code, and knows one exception that may come out of it."""
    script = """
import ray, time
from jobs.stopping import stopping
ray.init(num_cpus=1, log_to_driver=False)
busy = ray.remote(lambda: time.sleep(60)).remote()
try:
    with stopping():
        print("waiting", flush=True)
        ray.wait([busy], timeout=50)
except KeyboardInterrupt:
    print("stopped")
"""
    with subprocess.Popen([sys.executable, "-c", script], env=SHELL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        assert running.stdout is not None
        while "waiting" not in running.stdout.readline():
            assert running.poll() is None
        time.sleep(1)
        running.send_signal(number)
        started = time.monotonic()
        assert running.stdout.read().endswith("stopped\n")
        assert time.monotonic() - started < 30


def test_a_signal_whose_exception_is_dropped_is_raised_again(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Python drops what is raised in a destructor."""
    monkeypatch.setattr(stopping, "_AGAIN", 0.1)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)]
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), stopping.stopping():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        time.sleep(20)
    assert time.monotonic() - started < 15
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_run_goes_on_when_its_terminal_goes(good: Path, tmp_path: Path) -> None:
    with start(good, tmp_path / "r", "--inline", PYTHONIOENCODING="ascii") as running:
        assert running.stdout is not None and running.stderr is not None
        assert "units" in running.stdout.readline()
        running.stdout.close()
        said = running.stderr.read()
        assert running.wait() == 0 and said == "", said


class Totals(Lines):
    """Remembers what was said, and how large the total of each stage was."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.totals: dict[str, set[int]] = {}
        super().__init__(self.said.append)

    def attempt(self, attempt: Attempt) -> None:
        super().attempt(attempt)
        count = self._counts.of(attempt.unit.model.id, attempt.unit.stage)
        self.totals.setdefault(attempt.unit.stage, set()).add(count.total)


def test_totals_do_not_grow_while_a_stage_runs(info: ModelInfo, tmp_path: Path) -> None:
    reporter = Totals()
    prunelib.run(recipe(info), tmp_path / "r", reporter=reporter)
    assert {stage: len(totals) for stage, totals in reporter.totals.items()} == {
        "attribute": 1, "search": 1, "canary": 1, "evaluate": 1}
    counts = reporter._counts.stages.values()
    assert all(count.done == count.begun <= count.total for count in counts), reporter.said


def test_a_notebook_is_told_how_a_run_goes(
    info: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = recipe(info, evaluate={"tasks": ["to_upper"], "shots": [1], "examples": 2})
    prunelib.run(small, tmp_path / "quiet")
    assert capsys.readouterr().out == ""
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    prunelib.run(small, tmp_path / "told")
    assert "evaluate: " in capsys.readouterr().out
