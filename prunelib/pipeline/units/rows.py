"""Rows of the tables that several kinds of job write."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prunelib.components import Component
from prunelib.engines.base import Completion, Prompt
from prunelib.engines.multiple_choice import Chosen
from prunelib.pipeline.units.unit import Row, Unit
from prunelib.scoring.correctness import first_line, judge
from prunelib.tasks import Example, Task, Written
from prunelib.vocabulary import Purpose, Scoring


def prediction_rows(
    model: str,
    unit_id: str,
    task: Task,
    engine: str,
    prompt_format: Written,
    repeat: int,
    intervention: str,
    purpose: Purpose,
    examples: Sequence[Example],
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    scoring: Scoring,
) -> list[Row]:
    """Rows of the table ``predictions``; ``intervention`` is the digest of what was done."""
    rows: list[Row] = []
    for example, prompt, completion in zip(examples, prompts, completions, strict=True):
        prediction = first_line(completion.text, example.separator)
        outcome = judge(task, example, prediction)
        rows.append(
            {
                "model": model,
                "engine": engine,
                "intervention": intervention,
                "task": example.task,
                "split": example.split,
                "purpose": purpose,
                "shots": example.shots,
                "seed": example.seed,
                "example": example.example,
                "repeat": repeat,
                "format": str(prompt_format),
                "scoring": scoring,
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
                "choices": None,
                "right_choices": None,
                "choice_likelihoods": None,
                "choice_characters": None,
                "error": completion.error,
                "unit_id": unit_id,
            }
        )
    return rows


def choice_rows(rows: Sequence[Row], task: Task, examples: Sequence[Example],
                chosen: Sequence[Chosen]) -> list[Row]:
    """Rows of ``predictions`` of questions with choices of their own.

    A choice is right by its place, not by its text, and may be more than a line.
    """
    done = []
    for row, example, choice in zip(rows, examples, chosen, strict=True):
        right = [i for i, option in enumerate(example.choices) if option.right]
        text = choice.completion.text
        copies = [i for i, answer in enumerate(example.answers) if task.matches(text, answer)]
        failed = choice.completion.error is not None
        copied = bool(copies) and not choice.right and not failed
        done.append(row | {
            "gold": example.choices[right[0]].text if right else example.gold,
            "prediction": text.strip(),
            "correct": choice.right,
            "copied": copied,
            "copied_position": copies[-1] if copied else None,
            "choices": [option.text for option in example.choices],
            "right_choices": right,
            "choice_likelihoods": None if failed else list(choice.likelihoods),
            "choice_characters": [len(option.continuation) for option in example.choices],
        })
    return done


def score_row(unit: Unit, component: Component, name: str, value: float, error: float,
              prompts: int, queries: int, task: str | None = None, shots: int | None = None) -> Row:
    """A row of the table ``component_scores``; an ``error`` that is not known is nan."""
    return {
        "model": unit.model.id, "site": component.site, "layer": component.layer,
        "index": component.index, "score": name, "task": task, "shots": shots,
        "value": float(value), "standard_error": None if np.isnan(error) else float(error),
        "prompts": prompts, "queries": queries, "unit_id": unit.id,
    }  # fmt: skip
