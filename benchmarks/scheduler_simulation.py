"""How well the scheduler fills a cluster, and what a decision costs: simulated, 1 to 1,000 GPUs.

``python -m benchmarks.scheduler_simulation``

The scheduler that runs on Ray decides here too; only the workers are simulated, on a clock of
their own. 12 models, of which every third needs two GPUs of a node and every sixth four; a
process takes 60 s to start with its model; units take 2 to 240 s. Nodes have 8 GPUs, the
last one what is left. Beside it stands the same work without affinity: every GPU takes the next
unit in the order given (the models one after the other in turns), and starts anew when the model
differs from its last.

*Utilisation* is GPU-seconds of work done over GPU-seconds until the last unit ended. *Bound* is
the most that any schedule could reach: everyone starts once, and nobody waits.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cluster.scheduler import Need, Node, Retire, Scheduler, Slot, Start, Work
from prunelib.interventions.ablation import BASELINE
from prunelib.models import ModelInfo
from prunelib.pipeline.stages.evaluation import EvaluateJob
from prunelib.pipeline.units.prompts import TaskRef
from prunelib.pipeline.units.unit import Unit

MODELS, START, NODE = 12, 60.0, 8
SIZES = ((1, 10), (1, 100), (8, 100), (8, 1_000), (64, 1_000), (64, 10_000), (256, 10_000),
         (1_000, 10_000))


def gpus_of(model: int, most: int) -> int:
    """GPUs that a model needs; no more than a node has."""
    return min(most, 4 if model % 6 == 5 else 2 if model % 3 == 2 else 1)


def work(count: int, gpus: int, seed: int = 0) -> list[Unit]:
    """Units of all models in turns; the cost of a unit is its duration in seconds."""
    rng = random.Random(seed)
    units = []
    for number in range(count):
        model = number % MODELS
        info = ModelInfo(f"m{model}", "", "local", f"w{model}", "t", "llama", 32, 1, 1 << 30, 4096)
        job = EvaluateJob("bfloat16", "vllm", BASELINE, TaskRef(f"{number}", "d"), 1, 0, 5, 0,
                          "arrow", "greedy")
        units.append(Unit(info, job, cost=rng.uniform(2, 240),
                          tensor_parallel=gpus_of(model, min(gpus, NODE))))
    return units


def simulate(units: list[Unit], gpus: int) -> tuple[float, float]:
    """Seconds until the last unit ended, and real seconds that the scheduler took to decide."""
    scheduler = Scheduler(lambda unit: Need(gpus=unit.tensor_parallel or 1))
    scheduler.set_nodes([Node(f"{i}", Need(0, min(NODE, gpus - i)))
                         for i in range(0, gpus, NODE)])
    for unit in units:
        scheduler.add(Work(unit))
    events: list[tuple[float, int, Slot]] = []
    order = itertools.count()
    now = thinking = 0.0
    done = 0
    while done < len(units):
        began = time.perf_counter()
        actions = scheduler.decide(now)
        thinking += time.perf_counter() - began
        for action in actions:
            if isinstance(action, Retire):
                continue
            lasts = START if isinstance(action, Start) else action.work.unit.cost
            heapq.heappush(events, (now + lasts, next(order), action.slot))
        now, _, slot = heapq.heappop(events)
        if slot.state == "starting":
            scheduler.ready(slot, now)
        else:
            scheduler.finished(slot, now)
            done += 1
    return now, thinking


def without_affinity(units: list[Unit], gpus: int) -> float:
    """Seconds until the last unit ended, when free GPUs of a node take the next unit in turn."""
    free = {i: list(range(min(NODE, gpus - i))) for i in range(0, gpus, NODE)}
    last: dict[tuple[int, int], str] = {}
    running: list[tuple[float, int, int, list[int]]] = []
    now, order = 0.0, itertools.count()
    for unit in units:
        need = unit.tensor_parallel or 1
        while (node := next((n for n, there in free.items() if len(there) >= need), None)) is None:
            now, _, ended, given_back = heapq.heappop(running)
            free[ended] += given_back
        taken = [free[node].pop(0) for _ in range(need)]
        cold = any(last.get((node, gpu)) != unit.model.id for gpu in taken)
        last |= {(node, gpu): unit.model.id for gpu in taken}
        heapq.heappush(running, (now + unit.cost + START * cold, next(order), node, taken))
    return max(entry[0] for entry in running)


def measure(gpus: int, count: int) -> dict[str, float]:
    """One row of the table."""
    units = work(count, gpus)
    useful = sum(unit.cost * (unit.tensor_parallel or 1) for unit in units)
    longest = START + max(unit.cost for unit in units)
    ended, thinking = simulate(units, gpus)
    # Every model has to start somewhere, and no GPU works before its first start is over.
    starts = START * sum(gpus_of(m, min(gpus, NODE)) for m in range(min(MODELS, count)))
    shortest = max(longest, (useful + max(starts, START * gpus)) / gpus)
    return {
        "gpus": gpus, "units": count, "hours": ended / 3600,
        "utilisation": useful / (gpus * ended),
        "bound": useful / (gpus * shortest),
        "without_affinity": useful / (gpus * without_affinity(units, gpus)),
        "decision_ms_per_unit": 1e3 * thinking / count,
    }


def main() -> None:
    """Print the table and write it to ``benchmarks/results``."""
    rows = [measure(gpus, count) for gpus, count in SIZES]
    table = Table("GPUs", "units", "hours", "utilisation", "bound", "without affinity",
                  "decision, ms per unit", title="Scheduler, simulated")
    for row in rows:
        table.add_row(f"{row['gpus']:,}", f"{row['units']:,}", f"{row['hours']:.2f}",
                      f"{row['utilisation']:.1%}", f"{row['bound']:.1%}",
                      f"{row['without_affinity']:.1%}", f"{row['decision_ms_per_unit']:.3f}")
    Console().print(table)
    out = Path(__file__).parent / "results" / "scheduler_simulation.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
