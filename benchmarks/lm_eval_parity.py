"""Tasks of lm-evaluation-harness: our engine's answers beside the harness's own, item by item.

    python -m benchmarks.lm_eval_parity [--model reference/smollm2] [--examples 100]

Four local tasks, one of every type of request, whose examples are word pairs that ship with
prunelib. Each is answered by prunelib's transformers engine and by the harness's class for
transformers models, in one process and in float32. Needs lm-evaluation-harness.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

import prunelib
from benchmarks.copier_tables import markdown
from prunelib.engines.transformers import TransformersEngine
from prunelib.models import describe
from prunelib.models.loading import load_tokenizer
from prunelib.tasks.lm_eval_tasks import AskingOptions, load_task

RESULT = Path(__file__).parent / "results" / "lm_eval_parity.json"
#: Type of request → what its task says, and the metric that is shown.
TASKS: dict[str, tuple[dict[str, Any], str]] = {
    "multiple_choice": ({"doc_to_text": "{{prompt}}", "doc_to_choice": "choices",
                         "doc_to_target": "label", "metric_list": [{"metric": "acc"}]}, "acc"),
    "loglikelihood": ({"doc_to_text": "{{prompt}}", "doc_to_target": "{{choices[label]}}",
                       "metric_list": [{"metric": "acc"}]}, "acc"),
    "loglikelihood_rolling": ({"doc_to_text": "", "doc_to_target": "{{prompt}}",
                               "metric_list": [{"metric": "bits_per_byte"}]}, "bits_per_byte"),
    "generate_until": ({"doc_to_text": "{{prompt}}", "doc_to_target": "{{choices[label]}}",
                        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
                        "filter_list": [{"name": "stripped", "filter": [
                            {"function": "remove_whitespace"}, {"function": "take_first"}]}],
                        "metric_list": [{"metric": "exact_match"}]}, "exact_match"),
}


def write_tasks(folder: Path, examples: int) -> None:
    """Antonyms after three demonstrations, beside the answers of two other words."""
    prompts = prunelib.task("antonyms").prompts(examples, shots=3)
    golds = [prompt.gold for prompt in prompts]
    rows = [{"prompt": prompt.prompt, "label": i % 3, "choices": [
        golds[(i + (place - i % 3)) % len(golds)] for place in range(3)]}
        for i, prompt in enumerate(prompts)]
    data = folder / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    for kind, (config, _) in TASKS.items():
        (folder / f"parity_{kind}.yaml").write_text(yaml.safe_dump({
            "task": f"parity_{kind}", "output_type": kind, "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test",
            "target_delimiter": ""} | config),
            "utf-8")


def ours(model: str, folder: str) -> tuple[dict[str, Any], float]:
    """Type of request → (example → responses) and the metric; seconds."""
    from prunelib.engines.lm_eval_model import scores

    info = describe(model)
    engine, tokenizer = TransformersEngine(info), load_tokenizer(info)
    options = AskingOptions(0, 1234, None, chat=False, multiturn=False, system=None)
    began, found = time.perf_counter(), {}
    for kind, (_, metric) in TASKS.items():
        rows = [row for row in scores(engine, info, tokenizer,
                                      load_task(f"parity_{kind}", (folder,)), options)
                if row.metric == metric]
        mean = [row.value for row in rows if row.example is None] or [
            sum(row.value for row in rows) / len(rows)]
        found[kind] = {row.example: json.loads(row.responses) for row in rows
                       if row.example is not None}, mean[0]
    return found, time.perf_counter() - began


def theirs(model: str, folder: str) -> tuple[dict[str, Any], float]:
    """The same of the harness."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    info = describe(model)
    answers = HFLM(pretrained=info.path, device="cpu", dtype="float32", batch_size=8)
    manager = TaskManager(include_defaults=False, include_path=folder)
    began, found = time.perf_counter(), {}
    for kind, (_, metric) in TASKS.items():
        name = f"parity_{kind}"
        done = lm_eval.simple_evaluate(answers, tasks=[name], task_manager=manager,
                                       bootstrap_iters=0)
        [mean] = [value for key, value in done["results"][name].items()
                  if key.startswith(f"{metric},")]
        found[kind] = {sample["doc_id"]: [one[0] for one in sample["resps"]]
                       for sample in done["samples"][name]}, mean
    return found, time.perf_counter() - began


def compare(mine: dict[int, list[Any]], other: dict[int, list[Any]]) -> tuple[int, float]:
    """Examples whose texts and greedy flags are equal, and the largest gap of a log-likelihood."""
    equal, gap = 0, 0.0
    for example, responses in other.items():
        pairs = list(zip(mine[example], responses, strict=True))
        flat = [([a], [b]) if isinstance(b, str | float) else (a, b) for a, b in pairs]
        numbers = [(x, y) for a, b in flat for x, y in zip(a, b, strict=True)]
        gap = max([gap, *(abs(x - y) for x, y in numbers if isinstance(y, float))])
        equal += all(x == y for x, y in numbers if not isinstance(y, float))
    return equal, gap


def table(rows: list[dict[str, Any]]) -> str:
    """The table of ``docs/how-to/lm-eval.md``."""
    return markdown(
        ("requests", "same answer", "largest gap of a log-likelihood", "metric", "prunelib",
         "harness"),
        [(row["requests"], f"{row['equal']} of {row['examples']}", f"{row['gap']:.0e}",
          row["metric"], f"{row['ours']:.4f}", f"{row['theirs']:.4f}") for row in rows])


def main() -> None:
    """Print the table and write it to ``benchmarks/results``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="reference/smollm2")
    parser.add_argument("--examples", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_tasks(Path(folder), options.examples)
        (mine, seconds), (other, their_seconds) = (
            of(options.model, folder) for of in (ours, theirs))
    rows = []
    for kind, (answers, mean) in mine.items():
        equal, gap = compare(answers, other[kind][0])
        rows.append({"model": options.model, "requests": kind, "examples": len(other[kind][0]),
                     "equal": equal, "gap": gap, "metric": TASKS[kind][1], "ours": mean,
                     "theirs": other[kind][1]})
    RESULT.write_text(json.dumps(
        {"rows": rows, "seconds": seconds, "their_seconds": their_seconds}, indent=1) + "\n",
        "utf-8")
    Console().print(table(rows))
    Console().print(f"\nseconds: {seconds:.1f}, the harness {their_seconds:.1f}")


if __name__ == "__main__":
    main()
