"""SIGKILL at random moments: driver, workers and head of small runs, until so many were killed.

``PYTHONPATH=.:tests python tests/cluster/kills.py --kills 200 [--engine vllm]``
``PYTHONPATH=.:tests python tests/cluster/kills.py --every-stage``: parts of Ray, in each stage

Runs the small recipe on a Ray of its own again and again, kills a process every few seconds, and
starts the same command again when the driver is dead. Whenever a run is complete, its tables are
compared with those of a run that nobody disturbed, bit for bit, and a new folder is begun. A file
that was once there must stay there: it was reported as done.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.small import recipe, rows
from tiny_llama import build

import prunelib
from prunelib.errors import UserError
from prunelib.pipeline.progress import read_progress
from prunelib.recipe.recipe import Recipe

ROOT = Path(__file__).parent.parent.parent
#: Mean seconds between two kills. A worker needs as many to import what it needs.
PAUSE = 3.0
#: What is killed → how often.
SHARES = {"head": 0.05, "driver": 0.3, "worker": 0.65}
#: Processes of Ray → what their command lines have in them; the agent names itself in time.
PARTS = {"raylet": ("raylet/raylet",), "gcs": ("gcs_server",),
         "agent": ("dashboard/agent.py", "ray::DashboardAgent"), "worker": ("ray::WorkerActor",)}
STAGES = ("attribute", "search", "canary", "evaluate")


@dataclass
class Tally:
    """What happened."""

    killed: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    completed: int = 0
    lost_files: int = 0
    different_tables: int = 0

    def __str__(self) -> str:
        return (f"{self.killed.total()} killed {dict(self.killed)}, {self.starts} starts, "
                f"{self.completed} runs completed, {self.lost_files} files lost, "
                f"{self.different_tables} tables different")


class Head:
    """A Ray on loopback with a token, and two CPUs by its books."""

    def __init__(self) -> None:
        # Not below a test's folder: names of sockets are 107 bytes at the most.
        self.folder = tempfile.mkdtemp(prefix="kills-")
        self.start()

    def start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.environment = os.environ | {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            # Else Ray takes every form of localhost for the machine's outside address.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            # After this long a driver gives a lost head up. Ray's own minute is only waited for.
            "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
        }
        ray = Path(sys.executable).with_name("ray")
        self.process = subprocess.Popen(
            [ray, "start", "--head", "--block", "--num-cpus=2", "--include-dashboard=false",
             f"--port={self.address.rpartition(':')[2]}", f"--temp-dir={self.folder}"],
            env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True)
        while not reachable(self.address):
            assert self.process.poll() is None, "the head did not start"
            time.sleep(0.1)

    def close(self, how: signal.Signals = signal.SIGTERM) -> None:
        os.killpg(self.process.pid, how)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def reachable(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def start(head: Head, text: Path, results: Path) -> subprocess.Popen[bytes]:
    """The driver, as a user starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.overnight", text, "--results", results, "--address",
         head.address], cwd=ROOT, env=head.environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)


def processes(head: Head, part: str) -> list[int]:
    """Processes of this Ray, one kind of :data:`PARTS`; ``worker``: those with a model to run."""
    token = head.environment["RAY_AUTH_TOKEN"].encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, environment = ((folder / f).read_bytes() for f in ("cmdline", "environ"))
        except OSError:
            continue
        if token in environment and any(mark.encode() in name[:400] for mark in PARTS[part]):
            found.append(int(folder.name))
    return found


def kill(what: str, head: Head, driver: subprocess.Popen[bytes], rng: random.Random) -> bool:
    """SIGKILL the driver, a worker or the head; whether one was there."""
    there = processes(head, "worker")
    if not there:  # nothing has begun yet
        return False
    if what == "head":
        head.close(signal.SIGKILL)
        driver.wait()  # it can do nothing without a head
        head.start()
    elif what == "driver":
        driver.kill()
        driver.wait()
    else:
        try:
            os.kill(rng.choice(there), signal.SIGKILL)
        except ProcessLookupError:
            return False
    return True


def disturb_stages(wanted: Recipe, expected: Path, folder: Path,
                   kills: list[tuple[str, str]]) -> Tally:
    """Kill a part of Ray as soon as a stage begins, for each (part, stage) in its turn."""
    tally, head, results = Tally(), Head(), folder / "stages"
    text = folder / "recipe.yaml"
    text.write_text(wanted.model_dump_json(exclude_unset=True))
    driver = start(head, text, results)
    acknowledged: set[Path] = set()
    try:
        for part, stage in kills:
            while stage not in stages(results) or not (there := processes(head, part)):
                assert driver.poll() is None, f"ended before {stage}"
                time.sleep(0.05)
            acknowledged |= files(results)
            with contextlib.suppress(ProcessLookupError):
                os.kill(there[0], signal.SIGKILL)
            tally.killed[part] += 1
            if part != "worker":  # the others of this Ray end with it, and so does the driver
                driver.wait(120)
                head.close(signal.SIGKILL)
                head.start()
            if driver.poll() is not None:
                driver = start(head, text, results)
                tally.starts += 1
        tally.completed = int(driver.wait() == 0)
        tally.lost_files = len(acknowledged - files(results))
        found, undisturbed = rows(results), rows(expected)
        tally.different_tables = sum(not found[t].equals(undisturbed[t]) for t in undisturbed)
    finally:
        driver.kill()
        with contextlib.suppress(ProcessLookupError):
            head.close()
    print(tally, flush=True)
    return tally


def stages(results: Path) -> set[str]:
    """Stages that have begun."""
    try:
        return {stage.stage for stage in read_progress(results).stages}
    except UserError:
        return set()


def files(results: Path) -> set[Path]:
    """Everything that was committed, but for the rows of the run itself."""
    return {path for path in results.glob("*/*.parquet") if path.parent.name != "runs"}


def disturb(wanted: Recipe, expected: Path, folder: Path, kills: int, seed: int,
            shares: dict[str, float] = SHARES) -> Tally:
    """Kill until ``kills`` processes are dead, then let the last run end in peace."""
    rng, tally, head = random.Random(seed), Tally(), Head()
    text = folder / "recipe.yaml"
    text.write_text(wanted.model_dump_json(exclude_unset=True))
    undisturbed = rows(expected)
    try:
        while tally.killed.total() < kills:
            results = folder / f"run-{tally.completed}"
            acknowledged: set[Path] = set()
            while True:
                driver = start(head, text, results)
                tally.starts += 1
                while driver.poll() is None and tally.killed.total() < kills:
                    time.sleep(rng.expovariate(1 / PAUSE))
                    acknowledged |= files(results)
                    (what,) = rng.choices(list(shares), list(shares.values()))
                    if driver.poll() is None and kill(what, head, driver, rng):
                        tally.killed[what] += 1
                if driver.wait() == 0:
                    break
            tally.completed += 1
            tally.lost_files += len(acknowledged - files(results))
            found = rows(results)
            tally.different_tables += sum(not found[t].equals(undisturbed[t]) for t in undisturbed)
            print(tally, flush=True)
    finally:
        head.close()
    return tally


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--engine", default="transformers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every-stage", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name)
        wanted = recipe(build(folder / "model"), engine=options.engine)
        prunelib.run(wanted, folder / "expected")
        if options.every_stage:
            done = [disturb_stages(wanted, folder / "expected", Path(tempfile.mkdtemp(dir=folder)),
                                   [(part, stage) for stage in STAGES]) for part in PARTS]
            sys.exit(any(t.lost_files or t.different_tables or not t.completed for t in done))
        tally = disturb(wanted, folder / "expected", folder, options.kills, options.seed)
    sys.exit(bool(tally.lost_files or tally.different_tables))


if __name__ == "__main__":
    main()
