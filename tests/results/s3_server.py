"""A real S3 server on loopback, in a process of its own (moto's server mode)."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pyarrow.fs import S3FileSystem

BUCKET = "prunelib-tests"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(port: int, log: Path) -> Iterator[str]:
    """Address of the server, which has an empty bucket; its requests go to ``log``."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as server:
        try:
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert server.poll() is None, log.read_text()
                time.sleep(0.1)
            address = f"http://127.0.0.1:{port}"
            S3FileSystem(access_key="key", secret_key="secret", region="us-east-1",
                         endpoint_override=address, allow_bucket_creation=True).create_dir(BUCKET)
            yield address
        finally:
            server.kill()
