"""How long views take on made-up results: wall-clock time, CPU time and peak memory of each.

    python -m benchmarks.views [--rows 10000000] [--results DIR] [--code CHECKOUT --label 0.1.0]

5,000 units: 5 models × 25 tasks × 4 numbers of shots × 10 interventions (the baseline, a choice,
5 random controls, 3 random searches), whose answers ask 2,000 queries a task. Each view is read by
a process of its own, which opens the results. ``--results`` keeps the made-up results there, or
uses those that are; ``--code`` times another version of prunelib on the same files.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from prunelib.interventions.ablation import BASELINE
from prunelib.results.schemas import TABLES
from prunelib.results.storage.rows import parquet
from prunelib.results.storage.seal import sealed
from prunelib.results.storage.store import Store

RESULT = Path(__file__).parent / "results" / "views.json"
VIEWS = ("leaderboard", "comparisons", "evaluations")
MODELS, TASKS, SHOTS, QUERIES = 5, 25, (1, 2, 3, 4), 2000
#: Method, role, and seeds of random ones.
INTERVENTIONS = [("none", "baseline", None), ("integrated_gradients", "chosen", None),
                 *(("random", "control", seed) for seed in range(5)),
                 *(("random_search", "control", seed) for seed in range(3))]
UNITS = MODELS * TASKS * len(SHOTS) * len(INTERVENTIONS)
_RUN = "made-up-0123abcd"
# What the process that is timed does.
_ASK = """
import json, resource, sys, time
began = time.perf_counter()
from prunelib.results.query import query
lines = len(query(sys.argv[1], f"select * from {sys.argv[2]}"))
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"lines": lines, "wall_s": time.perf_counter() - began,
                  "cpu_s": used.ru_utime + used.ru_stime, "memory_gb": used.ru_maxrss / 2**20}))
"""


def make(folder: Path, rows: int) -> None:
    """Results with ``rows`` predictions."""
    store, rng = Store.open(folder), np.random.default_rng(0)
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    store.write("runs", _RUN, [{
        "run": _RUN, "started": now, "finished": now, "heartbeat": now, "status": "done",
        "recipe": "", "resolved": "{}", "code_version": "", "packages": "{}", "hardware": "{}",
        "units_done": UNITS, "units_failed": 0, "predicted": None}])
    names = [f"model-{i}" for i in range(MODELS)]
    members = []
    for model in names:
        store.write("interventions", f"choose-{model}", [_intervention(model, *intervention)
                                                         for intervention in INTERVENTIONS])
        members.append((f"choose-{model}", model))
    for task in range(TASKS):
        for shots in SHOTS:
            common = _common(rows // UNITS, task, shots, rng)
            for model in names:
                for place, intervention in enumerate(INTERVENTIONS):
                    unit_id = f"evaluate-{model}-{task}-{shots}-{place}"
                    content = _answers(common, unit_id, model, intervention, rng)
                    name = f"predictions/{unit_id}.parquet"
                    store.files.commit(name, sealed(name, parquet("predictions", content)))
                    members.append((unit_id, model))
    store.write("run_units", _RUN, [
        {"run": _RUN, "unit_id": unit_id, "stage": "evaluate", "model": model}
        for unit_id, model in members])


def _digest(method: str, role: str, seed: int | None) -> str:
    name = f"{method}-{seed}"
    return BASELINE.digest if role == "baseline" else name.encode().hex().ljust(64, "0")[:64]


def _intervention(model: str, method: str, role: str, seed: int | None) -> dict[str, Any]:
    off = role != "baseline"
    return {"model": model, "intervention": _digest(method, role, seed), "kind": "ablation",
            "content": "{}", "method": method, "role": role, "site": "mlp_hidden" if off else None,
            "layer": 3 if off else None, "rate": 0.1 if off else None, "count": 100 * off,
            "seed": seed, "proxy": "task-0" if off else None, "only_task": None,
            "strength": None, "samples": None, "unit_id": f"choose-{model}"}


def _common(n: int, task: int, shots: int, rng: np.random.Generator) -> dict[str, pa.Array]:
    """Columns that are the same for all models and interventions."""
    texts = pa.array([f"input {i} of task {task}" for i in range(QUERIES)])
    words = pa.array([f"answer {i}" for i in range(50)])

    def some(pool: pa.Array, size: int) -> pa.Array:
        return pool.take(pa.array(rng.integers(len(pool), size=size)))

    offsets = pa.array(np.arange(0, n * shots + 1, shots, dtype=np.int32))
    constant = {"engine": "vllm", "task": f"task-{task}", "split": "report", "purpose": "report",
                "shots": shots, "seed": 0, "repeat": 0, "format": "arrow", "scoring": "greedy",
                "gold_in_prompt": False, "prompt_tokens": 40}
    schema = TABLES["predictions"]
    columns = {name: pa.repeat(pa.scalar(value, schema.field(name).type), n)
               for name, value in constant.items()}
    return columns | {
        "example": pa.array(np.arange(n, dtype=np.int32)), "query": some(texts, n),
        "gold": some(words, n),
        "demonstrations": pa.ListArray.from_arrays(offsets, some(texts, n * shots)),
        "answers": pa.ListArray.from_arrays(offsets, some(words, n * shots))}


def _answers(common: dict[str, pa.Array], unit_id: str, model: str,
             intervention: tuple[str, str, int | None], rng: np.random.Generator) -> pa.Table:
    n = len(common["example"])
    luck = rng.random(n)
    right = luck < (0.7 if intervention[1] == "chosen" else 0.6)
    copied = luck > 0.8
    own = {"model": model, "unit_id": unit_id, "intervention": _digest(*intervention)}
    found = common | {name: pa.repeat(pa.scalar(value), n) for name, value in own.items()} | {
        "correct": pa.array(right), "copied": pa.array(copied), "prediction": common["gold"],
        "copied_position": pa.array(np.zeros(n, np.int32), mask=~copied)}
    schema = TABLES["predictions"]
    return pa.Table.from_arrays(
        [found.get(field.name, pa.nulls(n, field.type)) for field in schema], schema=schema)


def time_views(results: Path, code: Path) -> dict[str, dict[str, float]]:
    """View → what a process that reads it takes."""
    found = {}
    for view in VIEWS:
        done = subprocess.run([sys.executable, "-c", _ASK, str(results), view], check=True,
                              cwd=code, env=os.environ | {"PYTHONPATH": str(code)},
                              stdout=subprocess.PIPE, text=True)
        # DuckDB's progress may stand before it.
        found[view] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print the table and write it to ``benchmarks/results``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--code", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--label", default="now")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        results = options.results or Path(name) / "results"
        if not results.exists():
            make(results, options.rows)
        timed = time_views(results, options.code)
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    known.setdefault(options.label, {})[f"{options.rows}"] = timed
    RESULT.write_text(json.dumps(known, indent=1) + "\n")
    table = Table("version", "predictions", "view", "lines", "wall (s)", "CPU (s)", "memory (GB)",
                  title=f"Views on {UNITS:,} units")
    for label, sizes in known.items():
        for rows, views in sizes.items():
            for view, row in views.items():
                table.add_row(label, f"{int(rows):,}", view, f"{row['lines']:,}",
                              f"{row['wall_s']:.1f}", f"{row['cpu_s']:.1f}",
                              f"{row['memory_gb']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
