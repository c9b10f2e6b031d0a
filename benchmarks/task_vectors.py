"""Zero-shot, in-context learning and task vectors, in a model and in the pruned model.

    python -m benchmarks.task_vectors                                  # a reference model
    python -m benchmarks.task_vectors --model reference/llama-copier --pruned

The layer of the task vectors is chosen per task on the search split (development prompts) and
everything is reported on the report split. ``--pruned`` repeats it with the model's planted
neurons off: its vectors are read and written in the pruned model.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunelib.components import Component
from prunelib.engines.limits import stop_token_ids
from prunelib.errors import UserError
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.interventions.task_vectors import (
    Reading,
    TaskVectorAnswers,
    best_layer,
    task_vector_answers,
)
from prunelib.models import Loaded, describe, load, planted_neurons
from prunelib.scoring.correctness import judge
from prunelib.tasks import Task, draw, get_task, task_names
from prunelib.tasks.tokenization import encode


def right(task: Task, found: TaskVectorAnswers, answers: Sequence[str]) -> list[bool]:
    """Which answers are right."""
    return [judge(task, example, answer.strip()).correct
            for example, answer in zip(found.examples, answers, strict=True)]


def compare(loaded: Loaded, task: Task, ablation: Ablation, options: argparse.Namespace
            ) -> dict[str, Any]:
    """One task in one model: the layer chosen, and three accuracies on the report split."""
    some = draw(task, split="report", shots=options.shots, seed=0, count=options.examples)
    longest = max(len(encode(example, loaded.tokenizer).gold) for example in some)
    reading = Reading(longest + 2, tuple(stop_token_ids(loaded.tokenizer, loaded.info.ends)))
    shared: dict[str, Any] = {"shots": options.shots, "seed": 0, "count": options.examples,
                              "ablation": ablation, "context": options.context}
    search = task_vector_answers(loaded, task, reading, split="search", **shared)
    layer = best_layer({layer: right(task, search, answers)
                        for layer, answers in search.task_vector.items()})
    found = task_vector_answers(loaded, task, reading, split="report", layers=[layer], **shared)
    ways = {"zero_shot": found.zero_shot, "task_vector": found.task_vector[layer],
            "icl": found.icl}
    return {"layer": layer} | {way: sum(right(task, found, answers)) / len(answers)
                               for way, answers in ways.items()}


def main() -> None:
    """Run all tasks, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="reference/llama")
    parser.add_argument("--tasks", nargs="+", default=["icl18_reference"])
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--examples", type=int, default=50)
    parser.add_argument("--context", choices=["own", "other"], default="own")
    parser.add_argument("--pruned", action="store_true", help="also with planted neurons off")
    options = parser.parse_args()
    info = describe(options.model)
    planted = Ablation.of(Component(layer, info.site, index)
                          for layer, index in planted_neurons(info))
    if options.pruned and not len(planted):
        raise UserError(f"model '{options.model}' has no planted neurons")
    loaded = load(info)
    rows = []
    start = time.perf_counter()
    print(f"{'task':<20} {'model':<9} {'layer':>5} {'zero-shot':>9} {'task vector':>11} {'ICL':>5}")
    for name in task_names(options.tasks):
        for which, ablation in [("untouched", BASELINE), ("pruned", planted)][: 1 + options.pruned]:
            row = {"task": name, "model": which} | compare(loaded, get_task(name), ablation,
                                                           options)
            rows.append(row)
            print(f"{name:<20} {which:<9} {row['layer']:>5} {row['zero_shot']:>9.2f} "
                  f"{row['task_vector']:>11.2f} {row['icl']:>5.2f}", flush=True)
    for which in dict.fromkeys(row["model"] for row in rows):
        of = [row for row in rows if row["model"] == which]
        means = {way: sum(row[way] for row in of) / len(of)
                 for way in ("zero_shot", "task_vector", "icl")}
        print(f"{'mean':<20} {which:<9} {'':>5} {means['zero_shot']:>9.2f} "
              f"{means['task_vector']:>11.2f} {means['icl']:>5.2f}")
    seconds = time.perf_counter() - start
    print(f"{seconds:.0f} s")
    out = Path(__file__).parent / "results" / f"task_vectors_{Path(options.model).name}.json"
    out.write_text(json.dumps(vars(options) | {"seconds": seconds, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
