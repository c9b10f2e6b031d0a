"""Memory of a node: how much there is, how much is free, waiting until enough is.

GPUs are asked through ``nvidia-smi``: a CUDA context of our own would take memory itself, and an
engine could not fork after it.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

#: Seconds that a process which was just killed may take to give its memory back.
PATIENCE = 120.0


def gpu_memory(which: Sequence[str] | None = None) -> list[tuple[int, int]]:
    """(total, free) bytes of every GPU, or of those named; empty where there are none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=memory.total,memory.free", "--format=csv,noheader,nounits"]
    if which is not None:
        command.append(f"--id={','.join(which)}")
    said = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    lines = [line.split(",") for line in said.stdout.splitlines() if line.count(",") == 1]
    return [(int(total) << 20, int(free) << 20) for total, free in lines]


def free_memory() -> int:
    """Bytes that this process could still take: on its GPUs, or else of the machine."""
    visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    free = [free for _, free in gpu_memory(visible)] if visible else []
    if free:
        return sum(free)
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def wait_until_free(wanted: int, free: Callable[[], int] = free_memory) -> None:
    """Return as soon as ``wanted`` bytes are free.

    Raises:
        MemoryError: they are not within :data:`PATIENCE` seconds.
    """
    until = time.monotonic() + PATIENCE
    while (there := free()) < wanted:
        if time.monotonic() > until:
            raise MemoryError(f"{wanted / 2**30:.1f} GiB are needed and {there / 2**30:.1f} GiB "
                              f"free, {PATIENCE:.0f} s after the process before was ended")
        logger.info("waiting for memory: %.1f of %.1f GiB free", there / 2**30, wanted / 2**30)
        time.sleep(1)
