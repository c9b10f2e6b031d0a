"""The task vectors stage: zero-shot, with demonstrations, and with task vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.interventions.task_vectors import (
    VECTOR_ROWS,
    Reading,
    TaskVectorAnswers,
    best_layer,
    task_vector_answers,
)
from prunelib.pipeline.stages.intervention_records import AblationRecord
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import TaskRef
from prunelib.pipeline.units.unit import Job, Row, Unit, Workplace
from prunelib.recipe.evaluate import TaskVectorsSpec
from prunelib.scoring.correctness import first_line
from prunelib.tasks import Example, Written, draw, is_right
from prunelib.tasks.tokenization import answer_room
from prunelib.vocabulary import Stage


@dataclass(frozen=True)
class TaskVectorJob(Job):
    """One task under an ablation: every layer on the search split, the best one reported."""

    kind: ClassVar[str] = "task_vectors"
    stage: ClassVar[Stage] = "evaluate"
    table: ClassVar[str] = "task_vectors"

    task: TaskRef
    settings: TaskVectorsSpec
    format: Written
    ablation: Ablation

    def describe(self) -> str:
        return f"task vectors of {self.task.name}, {self.ablation}"

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        tried = self._answered(worker, unit, "search", None)
        right: dict[int, list[bool]] = {}
        for row in tried:
            if row["layer"] is not None:
                right.setdefault(row["layer"], []).append(row["correct"])
        return tried + self._answered(worker, unit, "report", [best_layer(right)])

    def _answered(self, worker: Workplace, unit: Unit, split: Literal["search", "report"],
                  layers: list[int] | None) -> list[Row]:
        """Answers with the vectors of some layers (or all), zero-shot and with demonstrations."""
        from prunelib.engines.limits import stop_token_ids

        loaded, task, spec = worker.loaded(unit.model, self.dtype), self.task.load(), self.settings
        some = draw(task, split=split, shots=spec.shots, seed=spec.seed, count=spec.examples,
                    prompt_format=self.format)
        reading = Reading(answer_room(some, task.options, loaded.tokenizer),
                          tuple(stop_token_ids(loaded.tokenizer, loaded.info.ends)),
                          VECTOR_ROWS >> worker.batch_halvings)
        found = task_vector_answers(
            loaded, task, reading, split=split, shots=spec.shots, seed=spec.seed,
            count=spec.examples, layers=layers, ablation=self.ablation, context=spec.context,
            prompt_format=self.format)
        return [
            self._row(unit, way, layer, example, answer := first_line(text, example.separator),
                      is_right(task, example, answer))
            for way, layer, answers in _ways(found)
            for example, text in zip(found.examples, answers, strict=True)
        ] + [self._row(unit, "icl", None, example, "", False, "too long for the model's context")
             for example in found.too_long]

    def _row(self, unit: Unit, way: str, layer: int | None, example: Example, prediction: str,
             correct: bool, error: str | None = None) -> Row:
        return {
            "model": unit.model.id, "intervention": self.ablation.digest, "task": self.task.name,
            "split": example.split, "shots": self.settings.shots, "seed": self.settings.seed,
            "way": way, "layer": layer, "example": example.example, "query": example.query,
            "gold": example.gold, "prediction": prediction, "correct": correct, "error": error,
            "unit_id": unit.id,
        }  # fmt: skip


def _ways(found: TaskVectorAnswers) -> list[tuple[str, int | None, tuple[str, ...]]]:
    """Way, layer and answers."""
    return [("zero_shot", None, found.zero_shot), ("icl", None, found.icl),
            *(("task_vector", layer, answers) for layer, answers in found.task_vector.items())]


def task_vectors(run: ModelRun, records: Sequence[AblationRecord]) -> list[Unit]:
    """The untouched model and every chosen ablation, on each task; if a recipe asks for it."""
    settings, spec = run.recipe.evaluate.task_vectors, run.recipe.evaluate
    if settings is None:
        return []
    wanted = {(record.intervention, task): None for record in records
              if record.role in ("baseline", "chosen")
              for task in (spec.tasks if record.only is None else (record.only,))}
    return [run.unit(TaskVectorJob(run.spec.dtype, run.task(task), settings,
                                   run.format_and_scoring(task)[0], ablation),
                     cost=float(run.info.layers), priority=int(ablation != BASELINE))
            for ablation, task in wanted]
