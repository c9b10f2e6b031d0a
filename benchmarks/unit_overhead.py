"""What scheduling a unit costs, and what it costs to find that a large run is finished.

``python -m benchmarks.unit_overhead [--units 10000]``

*Overhead*: units whose rows are there already go through Ray all the same (queue, worker, reply):
a worker sees that there is nothing to do, so all that is left is overhead. *Resume*: a recipe of
as many evaluations on a tiny random model, every one of them done; the command is started again
as a user would, in a new process, before and after ``prunelib compact``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from prunelib.interventions.ablation import BASELINE
from prunelib.models import ModelInfo, describe
from prunelib.pipeline.stages.evaluation import EvaluateJob
from prunelib.pipeline.stages.registry import Course
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import TaskRef
from prunelib.pipeline.units.unit import Row, Unit, Workplace
from prunelib.recipe.recipe import Recipe
from prunelib.results.schemas import TABLES
from prunelib.results.storage.compaction import compact
from prunelib.results.storage.store import Store

RESULT = Path(__file__).parent / "results" / "unit_overhead.json"


def tiny_model(folder: Path) -> ModelInfo:
    """A random model that is as small as a model can be."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from prunelib.reference.corpus import vocabulary
    from prunelib.reference.tokenizer import build_tokenizer

    LlamaForCausalLM(LlamaConfig(
        vocab_size=len(vocabulary()), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, max_position_embeddings=256,
    )).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return describe(str(folder))


def overhead(info: ModelInfo, results: Path, count: int) -> float:
    """Milliseconds per unit from submitting to the last reply, workers being up."""
    from cluster import RayExecutor

    store, empty = Store.open(results), TABLES["predictions"].empty_table()
    units = [Unit(info, EvaluateJob("float32", "transformers", BASELINE, TaskRef(f"{i}", "d"), 1, 0,
                                    5, 0, "arrow", "greedy")) for i in range(count)]
    for unit in units:
        store.write("predictions", unit.id, empty)
    assert store.done("predictions") == {unit.id for unit in units}
    executor = RayExecutor(results)
    for unit in units[:20]:  # workers start
        executor.submit(unit)
    for _ in range(20):
        assert executor.wait() is not None
    began = time.perf_counter()
    for unit in units:
        executor.submit(unit)
    for _ in units:
        attempt = executor.wait()
        assert attempt is not None and attempt.done
    took = time.perf_counter() - began
    executor.close()
    return 1e3 * took / count


def finished_run(info: ModelInfo, results: Path, recipe: Recipe) -> int:
    """Run the recipe but for its evaluations, whose rows are made up; how many units it has."""
    import prunelib

    def made_up(job: EvaluateJob, worker: Workplace, unit: Unit) -> list[Row]:
        return [{
            "model": unit.model.id, "engine": job.engine, "intervention": job.intervention.digest,
            "task": job.task.name, "split": "report", "purpose": "report", "shots": job.shots,
            "seed": job.seed,
            "example": i, "repeat": job.repeat, "format": job.format,
            "scoring": job.scoring, "choices": None, "right_choices": None,
            "choice_likelihoods": None, "choice_characters": None, "query": "q", "gold": "g",
            "prediction": "g", "correct": True, "copied": False, "copied_position": None,
            "margin": None, "gold_in_prompt": False, "demonstrations": ["a"], "answers": ["b"],
            "prompt_tokens": 10, "error": None, "unit_id": unit.id,
        } for i in range(job.examples)]  # fmt: skip

    EvaluateJob.run = made_up  # type: ignore[method-assign]
    report = prunelib.run(recipe, results)
    assert report.complete
    count = 0
    course = Course(ModelRun(recipe, recipe.models[0], info, Store.open(results), False))
    while (units := course.units()) is not None:
        count += len(units)
    return count


def again(recipe: Path, results: Path) -> float:
    """Seconds of the whole command on a finished run."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "jobs.cli", "run", str(recipe), "--results",
                    str(results)], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Print the table and write it to ``benchmarks/results``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=10_000)
    count = parser.parse_args().units
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        info = tiny_model(folder / "model")
        seeds = list(range(1 + count // (19 * 4 * 4)))  # 19 tasks, 4 shots, 4 passes
        recipe = Recipe.model_validate({
            "name": "many", "models": [info.path], "engine": "transformers",
            "attribution": {"prompts": 4, "shots": 2, "block": 4, "max_nodes": 9},
            "search": {"rates": [0.2], "examples": 4, "shots": 2},
            "evaluate": {"tasks": ["icl18_reference", "vowel_counting"], "seeds": seeds,
                         "examples": 5}})
        text = folder / "recipe.yaml"
        text.write_text(recipe.model_dump_json(exclude_unset=True))
        row = {"units": count, "overhead_ms": overhead(info, folder / "overhead", count)}
        row["run_units"] = finished_run(info, folder / "run", recipe)
        row["resume_s"] = again(text, folder / "run")
        began = time.perf_counter()
        compact(Store.open(folder / "run"))
        row["compaction_s"] = time.perf_counter() - began
        row["resume_compacted_s"] = again(text, folder / "run")
    table = Table("figure", "measured", title="Units: overhead and resume")
    table.add_row(f"overhead of a unit, {count:,} units", f"{row['overhead_ms']:.2f} ms")
    table.add_row(f"finished run of {row['run_units']:,} units, started again",
                  f"{row['resume_s']:.1f} s")
    table.add_row("compaction of its results", f"{row['compaction_s']:.1f} s")
    table.add_row("the same run after compaction", f"{row['resume_compacted_s']:.1f} s")
    Console().print(table)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    main()
