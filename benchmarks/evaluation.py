"""How fast tasks are evaluated under interventions: units of work against plain vLLM.

    python -m benchmarks.evaluation [--model reference/llama-copier] [--dtype float32 bfloat16]

Ours is everything that a run does for each (task, shots, intervention) unit: drawing and tokenising
prompts, the switch with its read-back and canaries, generation, scoring, and the Parquet file. Raw
is the same live engine's ``LLM.generate`` on the same token ids with the same limits, nothing else,
once for each intervention with an empty prefix cache. They take turns, and the fastest turn of each
counts, since other programs only ever slow one down. Reload is what a harness does that has no
interventions: it starts the engine on another checkpoint for each. The start of ours is measured
and counted once for each intervention, beside the seconds of raw. ``same`` is the share of answers
that are those of the first dtype.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.copier_tables import markdown
from benchmarks.switch_ablation import hardware
from prunelib.interventions.ablation import Ablation
from prunelib.models import ModelInfo, describe
from prunelib.pipeline.stages.evaluation import EvaluateJob
from prunelib.pipeline.units.prompts import TaskRef
from prunelib.pipeline.units.unit import Unit
from prunelib.pipeline.units.worker import Worker
from prunelib.results.storage.store import Store
from prunelib.tasks import get_task, task_names

RESULT = Path(__file__).parent / "results" / "evaluation.json"
SHOTS = (1, 2, 3, 4)
INTERVENTIONS, EXAMPLES, TURNS = 8, 20, 2


class Asked:
    """Remembers the requests that an engine's vLLM got, so that they can be made again."""

    def __init__(self, llm: Any) -> None:
        self._generate = llm.generate
        self.calls: list[tuple[list[Any], list[Any]]] = []
        llm.generate = self

    def __call__(self, prompts: list[Any], params: list[Any], **options: Any) -> Any:
        if params[0].max_tokens > 1:  # the others are canaries
            self.calls.append((prompts, params))
        return self._generate(prompts, params, **options)

    def again(self) -> float:
        """Seconds of all requests so far, in one call."""
        prompts = [prompt for call in self.calls for prompt in call[0]]
        params = [one for call in self.calls for one in call[1]]
        began = time.perf_counter()
        self._generate(prompts, params, use_tqdm=False)
        return time.perf_counter() - began


def units_of(info: ModelInfo, dtype: str, tasks: list[str], ablation: Ablation, seed: int
             ) -> list[Unit]:
    """The units of one intervention."""
    return [Unit(info, EvaluateJob(
        dtype, "vllm", ablation, TaskRef(name, get_task(name).digest), shots, seed, EXAMPLES, 0,
        "arrow", "greedy")) for name in tasks for shots in SHOTS]


def measure(model: str, dtype: str, tasks: list[str]) -> dict[str, Any]:
    """Seconds of ours and raw, prompts, seconds of a start, and every answer."""
    info = describe(model)
    ablations = [Ablation.of_layer(i % info.layers, [i]) for i in range(INTERVENTIONS)]
    ours, raw, answers = [], [], []
    with tempfile.TemporaryDirectory() as name:
        store = Store.open(name)
        worker = Worker(store)
        began = time.perf_counter()
        first = units_of(info, dtype, tasks[:1], ablations[-1], seed=TURNS)[0]
        worker.perform(first)
        start = time.perf_counter() - began
        engine: Any = worker._engine[1]  # type: ignore[index]
        llm = engine._llm
        for turn in range(TURNS):
            seconds = [0.0, 0.0]
            for ablation in ablations:
                asked = Asked(llm)
                units = units_of(info, dtype, tasks, ablation, seed=turn)
                began = time.perf_counter()
                for unit in units:
                    worker.perform(unit)
                seconds[0] += time.perf_counter() - began
                del llm.generate  # the method of the class again
                llm.reset_prefix_cache()
                seconds[1] += asked.again()
                rows = store.read("predictions", [unit.id for unit in units])
                answers += rows["prediction"].to_pylist()
            ours.append(seconds[0])
            raw.append(seconds[1])
        worker.forget()
    return {"model": model, "dtype": dtype, "tasks": len(tasks), "shots": len(SHOTS),
            "interventions": INTERVENTIONS, "prompts": len(answers) // TURNS, "ours": ours,
            "raw": raw, "start": start, "answers": answers}


def table(found: list[dict[str, Any]]) -> str:
    """One line per dtype."""
    lines = []
    for row in found:
        ours, raw, start, prompts = min(row["ours"]), min(row["raw"]), row["start"], row["prompts"]
        reloads = (row["interventions"] * start + raw) / (start + ours)
        lines.append((row["model"], row["dtype"], str(prompts), f"{prompts / ours:.1f}",
                      f"{prompts / raw:.1f}", f"{raw / ours:.0%}", f"{reloads:.1f} ×",
                      f"{row['same']:.1%}"))
    return markdown(("model", "dtype", "prompts", "ours, prompts/s", "raw, prompts/s",
                     "ours / raw", "against a reload for each", "same"), lines)


def main() -> None:
    """Measure each dtype, print the table, write it to ``benchmarks/results``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="reference/llama-copier")
    parser.add_argument("--dtype", nargs="+", default=["float32"])
    parser.add_argument("--tasks", nargs="+", default=["icl18"])
    given = parser.parse_args()
    found = [measure(given.model, dtype, list(task_names(given.tasks))) for dtype in given.dtype]
    first = found[0]["answers"]
    for row in found:
        answers = row.pop("answers")
        row["same"] = sum(map(str.__eq__, answers, first)) / len(answers)
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {"rows": []}
    rows = [row for row in known["rows"] if row["model"] != given.model] + found
    RESULT.write_text(json.dumps({"rows": rows} | hardware(), indent=1) + "\n", "utf-8")
    Console(width=200).print(table(found))


if __name__ == "__main__":
    main()
