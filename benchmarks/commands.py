"""How long the commands take that read results: wall-clock time, memory, size of what they write.

    python -m benchmarks.commands --results results/demo [--results DIR] [--rows 1000000]

Each command is a process of its own, started as a user starts it. ``--rows``: also on made-up
results of so many predictions (those of :mod:`benchmarks.views`). The middle of three runs, and
the range.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.copier_tables import markdown
from benchmarks.views import make

RESULT = Path(__file__).parent / "results" / "commands.json"
#: Name → arguments. OUT is a new file, RUN the latest run.
COMMANDS = {
    "query": ["query", "select * from leaderboard"],
    "shell": ["shell"],
    "digest": ["digest"],
    "compare": ["compare", "RUN", "RUN"],
    "catalog": ["catalog", "OUT.duckdb"],
    "report": ["report", "--out", "OUT.html"],
}
#: What is typed into the shell.
_TYPED = "select * from leaderboard;\n"


def once(arguments: list[str], results: Path) -> dict[str, Any]:
    """Run one command; seconds, peak memory, and bytes of the file that it made."""
    with tempfile.TemporaryDirectory() as name:
        given = [text.replace("OUT", f"{name}/out") for text in arguments]
        began = time.perf_counter()
        with subprocess.Popen(
                [Path(sys.executable).with_name("prunelib"), *given, "--results", str(results)],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as running:
            assert running.stdin
            running.stdin.write(_TYPED)
            running.stdin.close()
            _, status, used = os.wait4(running.pid, 0)
            running.returncode = os.waitstatus_to_exitcode(status)
        if running.returncode:
            raise RuntimeError(f"{' '.join(given)}: exit code {running.returncode}")
        made = next(iter(Path(name).glob("out.*")), None)
        return {"seconds": time.perf_counter() - began, "memory_gb": used.ru_maxrss / 2**20,
                "mb": made.stat().st_size / 1e6 if made else None}


def measure(results: Path, repeats: int) -> dict[str, dict[str, Any]]:
    """Command → what it takes on one results folder."""
    from prunelib.results.query import query

    [[run]] = query(results, "SELECT arg_max(run, started) AS run FROM runs").to_pandas().values
    found = {}
    for name, arguments in COMMANDS.items():
        timed = [once([run if text == "RUN" else text for text in arguments], results)
                 for _ in range(repeats)]
        seconds = [one["seconds"] for one in timed]
        found[name] = {"seconds": statistics.median(seconds), "least": min(seconds),
                       "most": max(seconds), "memory_gb": max(one["memory_gb"] for one in timed),
                       "mb": timed[0]["mb"]}
    return found


def _keep(found: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Write what was measured so far, beside what is known of other results."""
    known = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {}
    RESULT.write_text(json.dumps(known | found, indent=1) + "\n", "utf-8")


def main() -> None:
    """Print the table and write it to ``benchmarks/results``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, action="append", default=[])
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    found = {}
    for folder in options.results:
        found[folder.name] = measure(folder, options.repeats)
        _keep(found)
    if options.rows:
        with tempfile.TemporaryDirectory() as name:
            make(Path(name), options.rows)
            found[f"{options.rows:,} made-up predictions"] = measure(Path(name), options.repeats)
        _keep(found)
    Console().print(markdown(
        ("results", "command", "seconds (range)", "memory (GB)", "file (MB)"),
        [(folder, name, f"{row['seconds']:.1f} ({row['least']:.1f}–{row['most']:.1f})",
          f"{row['memory_gb']:.2f}", "" if row["mb"] is None else f"{row['mb']:.1f}")
         for folder, commands in found.items() for name, row in commands.items()]))


if __name__ == "__main__":
    main()
