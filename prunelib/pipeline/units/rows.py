"""Examples of a unit, their prompts, and the rows that answers to them become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunelib.components import Component
from prunelib.engines.base import Canary, Completion, Engine, Prompt
from prunelib.pipeline.units.unit import EvaluateJob, FineTuneJob, Prompts, Unit
from prunelib.scoring.correctness import first_line, judge
from prunelib.tasks import Example, Split, Task, draw

Row = dict[str, Any]


def examples_of(prompts: Prompts) -> tuple[Task, list[Example]]:
    """The task and the examples that are meant."""
    task = prompts.task.load()
    drawn = draw(task, split=prompts.split, shots=prompts.shots, seed=prompts.seed,
                 count=max(prompts.indices) + 1, prompt_format=prompts.format)
    return task, [drawn[i] for i in prompts.indices]


def prompts_of(examples: Sequence[Example], tokenizer: Any) -> list[Prompt]:
    """Token ids of prompts, with room for the longest answer that occurs and what ends it."""
    answers = {y for example in examples for y in (example.gold, *example.answers)}
    room = 2 + max(
        len(tokenizer(" " + answer, add_special_tokens=False)["input_ids"]) for answer in answers
    )
    return [Prompt(tuple(tokenizer(e.prompt)["input_ids"]), room) for e in examples]


def reported_rows(unit: Unit, job: EvaluateJob | FineTuneJob, engine: Engine, intervention: str,
                  repeat: int = 0, split: Split = "report") -> list[Row]:
    """Rows of an engine's answers to the examples that a job asks for."""
    from prunelib.engines.multiple_choice import answers_of
    from prunelib.models.loading import load_tokenizer

    task, tokenizer = job.task.load(), load_tokenizer(unit.model)
    examples = draw(task, split=split, shots=job.shots, seed=job.seed, count=job.examples,
                    prompt_format=job.format)
    prompts = prompts_of(examples, tokenizer)
    answers = (answers_of(engine, task, examples, tokenizer) if job.scoring == "options"
               else engine.generate(prompts))
    return prediction_rows(unit, task, engine.kind, job.format, repeat, intervention, examples,
                           prompts, answers)


def prediction_rows(
    unit: Unit,
    task: Task,
    engine: str,
    prompt_format: str,
    repeat: int,
    intervention: str,
    examples: Sequence[Example],
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
) -> list[Row]:
    """Rows of the table ``predictions``; ``intervention`` is the digest of what was done."""
    rows: list[Row] = []
    for example, prompt, completion in zip(examples, prompts, completions, strict=True):
        prediction = first_line(completion.text, example.separator)
        outcome = judge(task, example, prediction)
        rows.append(
            {
                "model": unit.model.id,
                "engine": engine,
                "ablation": intervention,
                "task": example.task,
                "split": example.split,
                "shots": example.shots,
                "seed": example.seed,
                "example": example.example,
                "repeat": repeat,
                "format": prompt_format,
                "query": example.query,
                "gold": example.gold,
                "prediction": prediction,
                "correct": outcome.correct and completion.error is None,
                "copied": outcome.copied and completion.error is None,
                "copied_position": outcome.copied_position if completion.error is None else None,
                "margin": None,
                "gold_in_prompt": outcome.gold_in_prompt,
                "demonstrations": [x for x, _ in example.demonstrations],
                "answers": list(example.answers),
                "prompt_tokens": len(prompt.token_ids),
                "error": completion.error,
                "unit_id": unit.id,
            }
        )
    return rows


def canary_of(row: Row) -> Canary:
    """The canary that a row of the table ``canaries`` holds."""
    return Canary(tuple(row["token_ids"]), tuple(row["candidates"]), tuple(row["logprobs"]))


def score_row(unit: Unit, component: Component, name: str, value: float, prompts: int,
              task: str | None = None, shots: int | None = None) -> Row:
    """A row of the table ``component_scores``."""
    return {
        "model": unit.model.id, "site": component.site, "layer": component.layer,
        "index": component.index, "score": name, "task": task, "shots": shots,
        "value": float(value), "prompts": prompts, "unit_id": unit.id,
    }  # fmt: skip
