"""The batch script for SLURM, with a stand-in for ``srun`` on two separate hosts."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from separate_hosts import REPOSITORY, Host, obstacle

from prunelib.models import ModelInfo
from prunelib.results.query import open_results

SCRIPT = REPOSITORY / "cluster" / "slurm.sbatch"
BIN = Path(sys.executable).parent

#: Hands a step to :class:`Allocation`, as the real one does to the controller: the environment of
#: the caller, exported functions included, goes along, and so does a signal.
SRUN = """#!/bin/bash
step={folder}/step.$SLURM_JOB_ID
rm -f $step.*
while [[ $1 == --* ]]; do shift; done
printf '%q ' "$@" > $step.command
export -p > $step.environment; declare -fx >> $step.environment
trap 'touch $step.signal' TERM
touch $step.start
until [ -e $step.end ]; do sleep 0.2; done
"""


@dataclass
class Allocation:
    """Two nodes, and what ``sbatch`` and the controller do for the script on the first."""

    nodes: list[Host]
    folder: Path

    def start(self, recipe: Path, results: Path, job: int, nodes: int = 2, **settings: str
              ) -> subprocess.Popen[str]:
        """Begin a job; its step is carried out meanwhile."""
        settings = {
            "SLURM_JOB_ID": str(job), "SLURM_JOB_NUM_NODES": str(nodes),
            "SLURM_SUBMIT_DIR": str(REPOSITORY), "SLURMD_NODENAME": "one",
            "PRUNELIB_BIN": str(BIN), "PYTHONPATH": str(REPOSITORY),
        } | settings
        given = " ".join(f"{key}='{value}'" for key, value in settings.items())
        script = shutil.copy(SCRIPT, self.folder / f"script.{job}")  # SLURM runs a copy, too
        process = subprocess.Popen(
            self.nodes[0].command(f"export PATH={self.folder}:$PATH {given}; "
                                  f"exec bash '{script}' '{recipe}' '{results}'"),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        Thread(target=self._step, args=(process, self.folder / f"step.{job}", nodes),
               daemon=True).start()
        return process

    def _step(self, job: subprocess.Popen[str], step: Path, nodes: int) -> None:
        """One task a node, until all have ended."""
        while not step.with_suffix(step.suffix + ".start").exists():
            if job.poll() is not None:
                return
            time.sleep(0.2)
        tasks = [
            subprocess.Popen(node.command(
                f"source {step}.environment; export SLURM_NODEID={i} SLURM_CPUS_ON_NODE=1; "
                f"exec $(cat {step}.command)"))
            for i, node in enumerate(self.nodes[:nodes])
        ]
        signalled = Path(f"{step}.signal")
        while any(task.poll() is None for task in tasks):
            if signalled.exists():
                signalled.unlink()
                for task in tasks:
                    os.kill(inside(task), signal.SIGTERM)
            time.sleep(0.2)
        Path(f"{step}.end").touch()

    def left(self, seconds: float = 30) -> list[str]:
        """What still runs of Ray on either node; helpers of its dashboard end a little later."""
        until = time.monotonic() + seconds
        while True:
            found = [line for node in self.nodes for line in node.processes() if "ray" in line]
            if not found or time.monotonic() > until:
                return found
            time.sleep(0.5)


@pytest.fixture(scope="module")
def allocation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Allocation]:
    reason = obstacle(ssh=False)
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "srun").write_text(SRUN.format(folder=folder))
    (folder / "srun").chmod(0o755)
    nodes: list[Host] = []
    try:
        for number, name in enumerate(["one", "two"], start=1):
            nodes.append(Host(name, number, folder, hub=nodes[0] if nodes else None))
        yield Allocation(nodes, folder)
    finally:
        for node in nodes:
            node.stop()


def inside(process: subprocess.Popen[Any]) -> int:
    """The first process on the host, which signals are for; nsenter outside waits for it."""
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())


def write_recipe(folder: Path, model: str, **changes: Any) -> Path:
    path = folder / "a recipe.yaml"
    path.write_text(yaml.safe_dump({
        "name": "small", "models": [model], "engine": "transformers",
        "attribution": {"prompts": 2, "shots": 2, "block": 1, "max_nodes": 4},
        "search": {"rates": [0.5], "examples": 4, "shots": 2}, "controls": {"random": 0},
        "evaluate": {"tasks": ["to_upper"], "shots": [1, 2], "examples": 4}} | changes))
    return path


def finish(process: subprocess.Popen[str], seconds: float = 240) -> tuple[int, str]:
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.kill(inside(process), signal.SIGKILL)
        pytest.fail(f"not within {seconds} s")
    return process.returncode, said


def test_the_script_is_valid_for_bash_and_sbatch() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    lines = SCRIPT.read_text().splitlines()
    directives = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert directives and max(directives) < first  # sbatch reads none after the first command
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", lines[i]) for i in directives)


@pytest.mark.parametrize(("arguments", "say"), [
    ([], "usage: sbatch"), (["missing.yaml", "results"], "missing.yaml")])
def test_mistakes_end_before_anything_is_started(
    arguments: list[str], say: str, tmp_path: Path
) -> None:
    done = subprocess.run(["bash", SCRIPT, *arguments], text=True, cwd=tmp_path,
                          env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path),
                               "PRUNELIB_BIN": str(BIN), "SLURM_SUBMIT_DIR": str(REPOSITORY)},
                          capture_output=True)
    assert done.returncode == 2 and say in done.stderr + done.stdout


def _fake(folder: Path, **scripts: str) -> None:
    for name, body in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)


def test_the_job_ends_where_ray_fails_on_the_head(tmp_path: Path) -> None:
    """The other node waits for the head for as long as it is let."""
    _fake(tmp_path, prunelib="exit 0", ray="echo no such port >&2; exit 1", sleep="exec true",
          python=f'exec {sys.executable} "$@"',
          srun="""while [[ $1 == --* ]]; do shift; done
trap 'kill $(jobs -p)' TERM
SLURM_CPUS_ON_NODE=1 SLURM_NODEID=0 "$@" & SLURM_CPUS_ON_NODE=1 SLURM_NODEID=1 "$@" &
wait; wait""")
    done = subprocess.run(
        ["bash", SCRIPT, "recipe.yaml", "results"], text=True, capture_output=True, timeout=60,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "1",
             "SLURM_JOB_NUM_NODES": "2", "SLURMD_NODENAME": "localhost",
             "SLURM_SUBMIT_DIR": str(tmp_path), "PRUNELIB_BIN": str(tmp_path)})
    assert done.returncode == 1 and "no such port" in done.stderr, done
    assert "error: Ray did not start" in done.stderr


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.cluster
def test_a_recipe_runs_on_every_node_of_an_allocation(
    allocation: Allocation, info: ModelInfo
) -> None:
    model = shutil.copytree(info.path, allocation.folder / "model")
    recipe = write_recipe(allocation.folder, str(model))
    results = allocation.folder / "results of a night"
    running = allocation.start(recipe, results, job=1,
                               SLURM_JOB_END_TIME=str(int(time.time()) + 3600))
    seen: set[str] = set()
    while running.poll() is None:  # what anybody on the nodes can read meanwhile
        for node in allocation.nodes:
            seen.update(node.processes())
        time.sleep(0.5)
    code, said = finish(running)
    assert code == 0, said
    workers = open_results(results).execute("select distinct worker from units").fetchall()
    assert {worker.split(":")[0] for worker, in workers} == {
        node.address for node in allocation.nodes}
    token = re.search(r'RAY_AUTH_TOKEN="(\w{64})"',
                      (allocation.folder / "step.1.environment").read_text())
    assert token and not any(token[1] in line for line in seen)
    assert not allocation.left()
    for node in allocation.nodes:
        assert "prunelib" not in node.run("ls /tmp")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.cluster
def test_the_time_limit_ends_a_run_and_the_next_goes_on(
    allocation: Allocation, info: ModelInfo
) -> None:
    """First no time is left when it starts; then the signal comes in the middle; then it ends."""
    model = shutil.copytree(info.path, allocation.folder / "model", dirs_exist_ok=True)
    recipe = write_recipe(allocation.folder, str(model), name="limited",
                          evaluate={"tasks": ["icl18"], "shots": [1, 2, 3], "examples": 20})
    results = allocation.folder / "limited"
    code, said = finish(allocation.start(recipe, results, job=6,
                                         SLURM_JOB_END_TIME=str(int(time.time()))))
    assert code == 1 and "no time for" in said, said

    def done() -> int:
        if not (results / "tables").exists() and not results.exists():
            return 0
        count = open_results(results).execute("select count(*) from units").fetchone()
        return int(count[0]) if count else 0

    running = allocation.start(recipe, results, job=2)
    until = time.monotonic() + 200
    while done() < 5 and time.monotonic() < until:
        time.sleep(1)
    os.kill(inside(running), signal.SIGTERM)
    code, said = finish(running)
    assert code != 0 and "Traceback" not in said, said
    assert not allocation.left()
    before = done()
    assert before >= 5
    code, said = finish(allocation.start(recipe, results, job=3))
    assert code == 0, said
    reused = re.search(r"(\d+) were there already", said)
    assert reused and int(reused[1]) >= 5


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.cluster
def test_two_jobs_share_a_node(allocation: Allocation, info: ModelInfo) -> None:
    model = shutil.copytree(info.path, allocation.folder / "model", dirs_exist_ok=True)
    recipe = write_recipe(allocation.folder, str(model), name="shared")
    running = [allocation.start(recipe, allocation.folder / f"shared {job}", job=job, nodes=1)
               for job in (4, 5)]
    for process in running:
        code, said = finish(process)
        assert code == 0, said
    assert not allocation.left()
