"""A real head with a token, as `ray start` makes one, on ports of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

TOKEN = "5" * 64


@dataclass(frozen=True)
class Head:
    dashboard: str
    gcs: str


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0)))
                   for _ in range(count)]
        return [s.getsockname()[1] for s in sockets]


@contextmanager
def ray_head() -> Iterator[Head]:
    """Start a head and wait until its dashboard answers; kill all of it in the end."""
    gcs, dashboard, agent, client = free_ports(4)
    folder = tempfile.mkdtemp(prefix="h", dir=os.environ.get("RAY_TMPDIR"))  # paths are limited
    bin_folder = str(Path(sys.executable).parent)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_") and k != "PYTHONPATH"}
    env = kept | {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",  # jobs run the `python` they find
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [
        f"{bin_folder}/ray", "start", "--head", "--block", f"--port={gcs}", "--num-cpus=2",
        "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
        f"--ray-client-server-port={client}", "--min-worker-port=0", "--max-worker-port=0",
        f"--temp-dir={folder}",
    ]
    with (Path(folder) / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder,
                                   start_new_session=True)
    try:
        head = Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}")
        _wait(head.dashboard, process, Path(folder) / "log")
        yield head
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(dashboard: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while status(dashboard) is None:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def status(dashboard: str, token: str | None = None) -> int | None:
    """What the Jobs API answers to a look at its list of jobs; None if nobody answers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{dashboard}/api/jobs/", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
