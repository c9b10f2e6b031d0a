"""What a machine with one GPU shows of prunelib, in under eight minutes.

    python -m benchmarks.gpu_check              # on a GPU; without one this is a rehearsal
    python -m benchmarks.gpu_check --rehearse   # small shapes on the CPU

Needs torch, transformers, numpy, pyarrow and pydantic, and neither Ray, vLLM nor DuckDB. Each step
is a process of its own with a time box. Whatever it has found is written to the result at once, so
a step that crashes or hangs costs itself alone.

1. ``correctness``: attribution, masks, replay, grid and engine in float32 against a CPU, and
   rankings in bfloat16 (the tests that are marked ``gpu``).
2. ``attribution``: seconds a sample in the shape of Llama-3.1-8B, with random weights.
3. ``grid``: 32 layers × 8 rates × 100 prompts of the same model, or as many layers as fit the box.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "gpu_check.json"
#: Step → seconds after which its process is ended, on a GPU.
BOXES = {"correctness": 150.0, "attribution": 120.0, "grid": 200.0}
#: The same of a rehearsal, on a machine that may have other work: each takes 20 s on an idle one.
REHEARSAL_BOX = 500.0
#: Seconds of a box that imports and the making of a model may take.
SETUP = 45.0


def environment() -> dict[str, Any]:
    """The machine and the versions, as far as the figures depend on them."""
    import torch
    import transformers

    gpu = torch.cuda.is_available()
    return {"gpu": torch.cuda.get_device_name() if gpu else None,
            "memory_gib": torch.cuda.get_device_properties(0).total_memory / 2**30 if gpu else None,
            "torch": torch.__version__, "cuda": torch.version.cuda,
            "transformers": transformers.__version__, "python": platform.python_version()}


def correctness(rehearsal: bool) -> Iterator[dict[str, Any]]:
    """One row a figure; a check that fails to run is a row too."""
    from benchmarks.gpu_correctness import CHECKS, MODELS

    device = "cpu" if rehearsal else "cuda"
    passed = failed = 0
    for model in MODELS[:1] if rehearsal else MODELS:
        for name, check in CHECKS.items():
            about = {"check": name, "model": model}
            try:
                for figure in check(model, device):
                    passed, failed = passed + figure.passed, failed + (not figure.passed)
                    yield about | {"figure": figure.name, "value": figure.value,
                                   "limit": figure.limit, "passed": figure.passed}
            except Exception as error:
                failed += 1
                yield about | {"error": f"{type(error).__name__}: {error}", "passed": False}
    yield {"summary": "correctness", "passed": passed, "failed": failed}


def perform(step: str, rehearsal: bool) -> None:
    """Run a step in this process; each row is one line of JSON on standard output."""
    import torch

    if rehearsal:
        torch.set_num_threads(1)  # on a machine with other work, several wait for each other
    if step == "correctness":
        rows = correctness(rehearsal)
    else:
        from benchmarks import gpu_speed

        rows = {"attribution": gpu_speed.attribution, "grid": gpu_speed.grid}[step](
            rehearsal, (REHEARSAL_BOX if rehearsal else BOXES[step]) - SETUP)
    print(json.dumps({"environment": environment()}), flush=True)
    for row in rows:
        print(json.dumps(row), flush=True)


def supervise(step: str, rehearsal: bool, box: float, result: dict[str, Any], out: Path) -> None:
    """Run a step in a process of its own and write its rows as they come."""
    found = result["steps"][step] = {"box": box, "rows": []}
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--step", step,
               *(["--rehearse"] if rehearsal else [])]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
        timer = threading.Timer(box, process.kill)
        timer.start()
        assert process.stdout is not None
        for line in process.stdout:
            row = json.loads(line)
            if "environment" in row:
                result["environment"] = row["environment"]
            elif "summary" in row:
                found.update(row)
            else:
                found["rows"].append(row)
            found["took"] = time.perf_counter() - start
            write(result, out)
        code = process.wait()
        timer.cancel()
        if code:
            said.seek(0)
            last = (said.read().strip().splitlines() or [""])[-1]
            found["error"] = (f"ended after {box:.0f} s" if code < 0 and time.perf_counter() - start
                              >= box else f"exit code {code}: {last}")
    write(result, out)
    print(step, json.dumps({k: v for k, v in found.items() if k != "rows"}), flush=True)


def write(result: dict[str, Any], out: Path) -> None:
    """Replace the result as a whole: whoever reads it sees one state or the next."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(out)


def main() -> None:
    """Run all steps; exit code 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="small shapes on the CPU")
    parser.add_argument("--out", type=Path, help="where the result goes")
    parser.add_argument("--step", choices=sorted(BOXES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    import torch

    rehearsal = options.rehearse or not torch.cuda.is_available()
    if options.step:
        perform(options.step, rehearsal)
        return
    # Figures of a CPU never take the place of those of a GPU.
    out = options.out or (Path("results/gpu_check_rehearsal.json") if rehearsal else RESULT)
    result: dict[str, Any] = {"rehearsal": rehearsal, "environment": {}, "steps": {}}
    for step, box in BOXES.items():
        supervise(step, rehearsal, REHEARSAL_BOX if rehearsal else box, result, out)
    print(f"{'rehearsal: ' if rehearsal else ''}written to {out}")
    if any("error" in step or step.get("failed") for step in result["steps"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
