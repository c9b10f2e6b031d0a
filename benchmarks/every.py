"""The benchmarks of speed, one after the other, and the page of what they said: ``make bench``.

    python -m benchmarks.every [NAME ...]

Each is a process of its own and prints its table, with the baseline beside it. README.md of this
folder keeps what a benchmark printed when it ran last, and on what machine; those that are not
named keep what they have. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks.switch_ablation import hardware

PAGE = Path(__file__).parent / "README.md"
#: Name → its arguments, and what is compared.
BENCHMARKS: dict[str, tuple[list[str], str]] = {
    "ig_against_captum": ([], "Scores of all neurons of the reference Llama to an equal error, "
                          "against Captum's integrated gradients at its default of 50 steps. "
                          "Target: 4 times as fast."),
    "other_libraries": ([], "One job beside Captum, TransformerLens and nnsight (those that are "
                        "installed)."),
    "grid": (["--model", "reference/llama-copier"],
             "A search's grid in batches, against hot swap cell by cell (target: 4 times as fast) "
             "and a reload for each cell (100 times)."),
    "switch_ablation": ([], "Another intervention in a live engine, against starting it again."),
    "evaluation": (["--dtype", "float32", "bfloat16"],
                   "18 tasks, four numbers of shots, eight interventions: units of work against "
                   "plain vLLM (target: 95%), and against a reload for each intervention (5 "
                   "times)."),
    "lm_eval_parity": ([], "Tasks of lm-evaluation-harness, against its own class for "
                       "transformers models."),
    "unit_overhead": ([], "What scheduling and storing a unit costs, and starting a finished run "
                      "again."),
    "scheduler_simulation": ([], "How busy the scheduler keeps many GPUs."),
    "views": ([], "Views on a million predictions. Target: 50 million in 10 s and 4 GB."),
    "commands": (["--results", "results/demo"],
                 "Commands that read the demo's results. Targets: query 1 s, report 10 s."),
}
_HEAD = """# Benchmarks of speed

`make bench` runs them all, `python -m benchmarks.every NAME` some, and either writes this page. A
figure is a ratio, or stands beside that of another way to do the same in the same run. For GPUs
there is `make gpu-check`.
"""
_SECTION = re.compile(r"^## (\w+)\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def machine() -> str:
    """What the figures depend on, in a line."""
    found = hardware()
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    return (f"{datetime.now(UTC):%Y-%m-%d}, {found['cpus']} × {_processor()}, {packages}, load "
            f"before: {found['load_before']:.1f}")


def _processor() -> str:
    cpus = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpus.read_text()) if cpus.exists() else None
    return found[1] if found else platform.machine()


def section(name: str, said: str, on: str) -> str:
    """A benchmark's part of the page."""
    arguments, what = BENCHMARKS[name]
    command = " ".join(["python -m", f"benchmarks.{name}", *arguments])
    table = said if said.startswith("|") else f"```text\n{said}\n```"
    return f"## {name}\n\n{what}\n\n`{command}`; {on}\n\n{table}\n\n"


def run(name: str) -> str | None:
    """What a benchmark prints; ``None`` if it fails."""
    arguments, _ = BENCHMARKS[name]
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments],
                          stdout=subprocess.PIPE, text=True, check=False,
                          env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    return "\n".join(lines).strip() if done.returncode == 0 else None


def main() -> int:
    """Run them, write the page after each; the exit code says whether all were run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help=", ".join(BENCHMARKS))
    console, failed = Console(), []
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    for name in names:
        console.print(f"{name}: {BENCHMARKS[name][1]}")
        on, said = machine(), run(name)
        if said is None:
            failed.append(name)
            continue
        text = PAGE.read_text("utf-8") if PAGE.exists() else ""
        known = {found[1]: found[0] for found in _SECTION.finditer(text)}
        known[name] = section(name, said, on)
        parts = [known[one].strip() for one in BENCHMARKS if one in known]
        PAGE.write_text("\n\n".join([_HEAD.strip(), *parts]) + "\n", "utf-8")
    if failed:
        console.print(f"failed: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
