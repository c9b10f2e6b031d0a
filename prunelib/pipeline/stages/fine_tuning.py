"""What stands beside pruning: fine-tuning on the same samples, and task vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from prunelib.interventions.ablation import BASELINE
from prunelib.pipeline.stages.attribution import Ranking
from prunelib.pipeline.stages.search import Entry
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.rows import Row, examples_of, prompts_of, reported_rows
from prunelib.pipeline.units.unit import FineTuneJob, TaskVectorJob, Unit
from prunelib.tasks import draw

if TYPE_CHECKING:
    from prunelib.pipeline.units.worker import Worker


def fine_tuning(run: ModelRun, rankings: list[Ranking]) -> list[Unit]:
    """Units of the fine-tuning control: the main rankings' samples, on the tasks they report."""
    settings, spec = run.recipe.controls.fine_tuning, run.recipe.evaluate
    if settings is None:
        return []
    units: list[Unit] = []
    rows: list[Row] = []
    for ranking in (r for r in rankings if r.arm.main and not r.random):
        jobs = [
            FineTuneJob(ranking.sample, settings, run.task(task), shots, seed, spec.examples,
                        *run.written(task), run.spec.dtype)
            for task in ([ranking.arm.only] if ranking.arm.only else spec.tasks)
            for shots in spec.shots
            for seed in spec.seeds
        ]
        units += [run.unit(job, priority=1) for job in jobs]
        rows.append({
            "model": run.info.id, "ablation": jobs[0].intervention, "method": "fine_tuning",
            "role": "control", "site": None, "layer": None, "rate": None, "count": 0,
            "seed": ranking.seed, "proxy": ranking.arm.task, "only_task": ranking.arm.only,
            "component_layers": [], "component_indices": [],
        })  # fmt: skip
    run.record("ablations", rows, "fine-tuning")
    return units


def perform_fine_tuning(worker: Worker, unit: Unit, job: FineTuneJob) -> list[Row]:
    """Fine-tune (or take the model that was tuned for the unit before) and evaluate."""
    from prunelib.engines.transformers import TransformersEngine
    from prunelib.interventions.fine_tuning import fine_tune
    from prunelib.models.loading import load_tokenizer
    from prunelib.tasks.tokenization import encode

    def tuned() -> TransformersEngine:
        samples = [encode(example, load_tokenizer(unit.model))
                   for example in examples_of(job.samples)[1]]
        return TransformersEngine(fine_tune(
            unit.model, [(s.prompt, s.gold) for s in samples], job.settings, job.dtype))

    engine = worker.kept((unit.model.weights_digest, job.intervention, job.dtype), tuned)
    return reported_rows(unit, job, engine, job.intervention)


def task_vectors(run: ModelRun, entries: list[Entry]) -> list[Unit]:
    """Units of task vectors: the untouched model and every chosen ablation, on each task."""
    settings, spec = run.recipe.evaluate.task_vectors, run.recipe.evaluate
    if settings is None:
        return []
    wanted = {(entry.ablation, task): None for entry in entries
              if entry.role in ("baseline", "chosen")
              for task in (spec.tasks if entry.only is None else (entry.only,))}
    return [run.unit(TaskVectorJob(run.task(task), settings, run.written(task)[0], ablation,
                                   run.spec.dtype),
                     cost=float(run.info.layers), priority=int(ablation != BASELINE))
            for ablation, task in wanted]


def perform_task_vectors(worker: Worker, unit: Unit, job: TaskVectorJob) -> list[Row]:
    """Every layer on the search split; the best one, zero-shot and ICL on the report split."""
    from prunelib.engines.limits import stop_token_ids
    from prunelib.interventions.task_vectors import (
        ROWS,
        Reading,
        TaskVectorAnswers,
        best_layer,
        task_vector_answers,
    )
    from prunelib.scoring.correctness import first_line

    loaded = worker.loaded(unit.model, job.dtype)
    task, spec = job.task.load(), job.settings
    stop = tuple(stop_token_ids(loaded.tokenizer))

    def answered(split: Literal["search", "report"], layers: list[int] | None
                 ) -> TaskVectorAnswers:
        longest = prompts_of(draw(task, split=split, shots=spec.shots, seed=spec.seed,
                                  count=spec.examples), loaded.tokenizer)
        reading = Reading(max(p.max_tokens for p in longest), stop, ROWS >> worker.halvings)
        return task_vector_answers(
            loaded, task, reading, split=split, shots=spec.shots, seed=spec.seed,
            count=spec.examples, layers=layers, ablation=job.ablation, context=spec.context,
            prompt_format=job.format)

    def rows(found: TaskVectorAnswers) -> list[Row]:
        ways: list[tuple[str, int | None, tuple[str, ...]]] = [
            ("zero_shot", None, found.zero_shot), ("icl", None, found.icl),
            *(("task_vector", layer, answers) for layer, answers in found.task_vector.items())]
        return [_answer(unit, job, way, layer, example, first_line(text, example.separator),
                        task.matches(first_line(text, example.separator), example.gold))
                for way, layer, answers in ways
                for example, text in zip(found.examples, answers, strict=True)]

    tried = rows(answered("search", None))
    right: dict[int, list[bool]] = {}
    for row in tried:
        if row["layer"] is not None:
            right.setdefault(row["layer"], []).append(row["correct"])
    return tried + rows(answered("report", [best_layer(right)]))


def _answer(unit: Unit, job: TaskVectorJob, way: str, layer: int | None, example: Any,
            prediction: str, correct: bool) -> Row:
    return {
        "model": unit.model.id, "ablation": job.ablation.digest, "task": job.task.name,
        "split": example.split, "shots": job.settings.shots, "seed": job.settings.seed,
        "way": way, "layer": layer, "example": example.example, "query": example.query,
        "gold": example.gold, "prediction": prediction, "correct": correct, "unit_id": unit.id,
    }  # fmt: skip
