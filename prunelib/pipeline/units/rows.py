"""Rows of the tables that several kinds of job write."""

from __future__ import annotations

from collections.abc import Sequence

from prunelib.components import Component
from prunelib.engines.base import Completion, Prompt
from prunelib.pipeline.units.unit import Row, Unit
from prunelib.scoring.correctness import first_line, judge
from prunelib.tasks import Example, Task
from prunelib.vocabulary import Purpose


def prediction_rows(
    unit: Unit,
    task: Task,
    engine: str,
    prompt_format: str,
    repeat: int,
    intervention: str,
    purpose: Purpose,
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
                "intervention": intervention,
                "task": example.task,
                "split": example.split,
                "purpose": purpose,
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


def score_row(unit: Unit, component: Component, name: str, value: float, prompts: int,
              task: str | None = None, shots: int | None = None) -> Row:
    """A row of the table ``component_scores``."""
    return {
        "model": unit.model.id, "site": component.site, "layer": component.layer,
        "index": component.index, "score": name, "task": task, "shots": shots,
        "value": float(value), "prompts": prompts, "unit_id": unit.id,
    }  # fmt: skip
