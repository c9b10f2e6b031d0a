"""What every (layer, rate) of a ranking does to every task: a map against which choices are judged.

``python -m benchmarks.cell_map --results DIR --model ID --out FILE`` (more by ``--help``)

DIR holds a finished run that attributed the model; its scores are the ranking (``--method``). Every
cell switches off the first components of one layer, and is asked the same examples of every task as
the untouched model, by the units of a search. FILE (Parquet) has one row per (layer, rate, task):
the outcome of every example, in their order, and what made it: weights, prompts and scores by their
digests. The untouched model is the row with rate 0. Layers that FILE.parts has are not done again.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from prunelib.components import Site
from prunelib.identity import digest
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.models import adapter_for, describe
from prunelib.pipeline.stages.search import GridJob
from prunelib.pipeline.units.prompts import PromptsRef, TaskRef
from prunelib.pipeline.units.unit import Unit
from prunelib.pipeline.units.worker import Worker
from prunelib.results.query import open_results
from prunelib.results.storage.store import Store
from prunelib.search.selection import cut
from prunelib.tasks import get_task, numbers, task_names

RATES = (0.005, 0.01, 0.02, 0.05, 0.1)
SHOTS = 3


def ranking(results: Path, model: str, method: str) -> dict[int, list[int]]:
    """Layer → components, the first to be switched off first."""
    found = open_results(results).execute(
        'SELECT layer, list("index" ORDER BY "rank") FROM (SELECT DISTINCT layer, "index", "rank" '
        "FROM attributions WHERE model = $1 AND method = $2) GROUP BY layer ORDER BY layer",
        [model, method]).fetchall()
    return dict(found)


def prompts_of(name: str, split: str, examples: int, seed: int) -> PromptsRef:
    """The examples of a task that every cell is asked."""
    task = get_task(name)
    return PromptsRef(TaskRef(name, task.digest), split, SHOTS, seed, tuple(  # type: ignore[arg-type]
        numbers(task, split=split, shots=SHOTS, seed=seed, count=examples)), "arrow")  # type: ignore[arg-type]


def layer_rows(model: str, layer: int, order: list[int], prompts: list[PromptsRef],
               folder: str) -> list[dict[str, Any]]:
    """Rows of one layer; of layer -1, the untouched model's."""
    info = describe(model)
    worker = Worker(Store.open(folder))
    site: Site = adapter_for(info.model_type).site
    cells: dict[float, Ablation] = {0.0: BASELINE} if layer < 0 else {
        rate: cut(layer, order, rate, info.components(site), site) for rate in RATES}
    rows = []
    for asked in prompts:
        job = GridJob("float32", asked, "greedy", layer if layer >= 0 else info.layers - 1,
                      tuple(dict.fromkeys(cells.values())))
        found = job.run(worker, Unit(info, job))
        for rate, ablation in cells.items():
            mine = sorted((row for row in found if row["intervention"] == ablation.digest),
                          key=lambda row: row["example"])
            rows.append({"layer": layer, "rate": rate, "task": asked.task.name,
                         "intervention": ablation.digest,
                         "queries": [row["query"] for row in mine],
                         **{name: [row[name] for row in mine]
                            for name in ("example", "correct", "copied", "margin")}})
    return rows


def main() -> None:
    """Fill the map, layer by layer, with two processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", default="integrated_gradients")
    parser.add_argument("--split", default="report")
    parser.add_argument("--tasks", nargs="+", default=["icl18"])
    parser.add_argument("--examples", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    console, info = Console(), describe(given.model)
    orders = ranking(given.results, given.model, given.method)
    prompts = [prompts_of(name, given.split, given.examples, given.seed)
               for name in task_names(given.tasks)]
    about = {"model": info.id, "weights": info.weights_digest, "split": given.split,
             "shots": SHOTS, "seed": given.seed, "method": given.method,
             "scores": digest("ranking", [[layer, order] for layer, order in orders.items()])}
    parts = given.out.with_suffix(".parts")
    parts.mkdir(parents=True, exist_ok=True)
    kept = {layer: parts / f"{digest('part', [about, layer, sorted(given.tasks)])}.json"
            for layer in (-1, *orders)}
    missing = [layer for layer, path in kept.items() if not path.exists()]
    with ProcessPoolExecutor(given.workers, get_context("spawn")) as pool:
        running = {pool.submit(layer_rows, given.model, layer, orders.get(layer, []), prompts,
                               str(parts)): layer for layer in missing}
        for done, future in enumerate(as_completed(running), len(kept) - len(missing) + 1):
            kept[running[future]].write_text(json.dumps(future.result()), "utf-8")
            console.print(f"{done} of {len(kept)} layers")
    rows = [row for path in kept.values() for row in json.loads(path.read_text("utf-8"))]
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"map": json.dumps(about)})
    pq.write_table(table, given.out, compression="zstd")
    console.print(f"{len(rows)} rows in {given.out}")


if __name__ == "__main__":
    main()
