"""The evaluation stage: a task under an intervention, on an engine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, TypeVar

from prunelib.engines.base import Canary
from prunelib.engines.limits import model_limits
from prunelib.engines.registry import EngineName, choose_engine
from prunelib.interventions.ablation import BASELINE
from prunelib.interventions.base import Intervention
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import TaskRef, tokenized
from prunelib.pipeline.units.rows import choice_rows, prediction_rows
from prunelib.pipeline.units.unit import Job, Row, Unit, WorkerRole, Workplace
from prunelib.tasks import Split, Written, draw, own_scoring
from prunelib.vocabulary import Purpose, Scoring, Stage


@dataclass(frozen=True)
class EngineJob(Job):
    """A job that runs on an engine."""

    stage: ClassVar[Stage] = "evaluate"
    table: ClassVar[str] = "predictions"

    engine: EngineName
    intervention: Intervention
    #: How the engine is checked.
    canary: Canary | None = field(default=None, compare=False, kw_only=True)

    @property
    def role(self) -> WorkerRole:
        """Engines other than transformers have processes of their own."""
        return "torch" if self.engine == "transformers" else self.engine


Asking = TypeVar("Asking", bound=EngineJob)


@dataclass(frozen=True)
class EvaluateJob(EngineJob):
    """One task at one number of shots and one seed, under one intervention."""

    kind: ClassVar[str] = "evaluate"

    task: TaskRef
    shots: int
    seed: int
    examples: int
    repeat: int
    #: As the recipe names it, ``own`` for that of the task, or the model's chat template.
    format: Written
    scoring: Scoring
    split: Split = "report"
    #: Where demonstrations come from, unless from the same split.
    demonstrations: tuple[Split, ...] = ()
    #: What the answers are for.
    purpose: Purpose = "report"

    def describe(self) -> str:
        return f"{self.task.name}, {self.shots} shots, seed {self.seed}, {self.intervention}"

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        from prunelib.engines.multiple_choice import answers_of, choose_own
        from prunelib.models.loading import load_tokenizer

        engine = worker.engine(unit, self.engine, self.dtype, self.intervention, self.canary)
        task, tokenizer = self.task.load(), load_tokenizer(unit.model)
        examples = draw(task, split=self.split, shots=self.shots, seed=self.seed,
                        count=self.examples, prompt_format=self.format,
                        demonstrations=self.demonstrations)
        prompts = tokenized(task, examples, tokenizer)
        own = own_scoring(self.scoring)
        chosen = None if own is None else choose_own(engine, own, examples, tokenizer)
        if chosen is not None:
            answers = [choice.completion for choice in chosen]
        else:
            answers = (answers_of(engine, task, examples, tokenizer, model_limits(unit.model))
                       if self.scoring == "options" else engine.generate(prompts))
        rows = prediction_rows(unit.model.id, unit.id, task, engine.kind, self.format, self.repeat,
                               self.intervention.digest, self.purpose, examples, prompts, answers,
                               self.scoring)
        return rows if chosen is None else choice_rows(rows, task, examples, chosen)


def evaluate_job(
    run: ModelRun, task: str, shots: int, seed: int, examples: int, intervention: Intervention,
    canary: Canary | None, repeat: int = 0, split: Split = "report",
    purpose: Purpose = "report", scoring: Literal["options"] | None = None,
) -> EvaluateJob:
    """A task under an intervention, on the engine that runs it here.

    ``scoring`` is the task's or the recipe's unless it is given; that of own choices stays. What
    the recipe says of demonstrations is for reported tasks.
    """
    shown = run.recipe.evaluate.demonstrations if purpose == "report" else None
    written, usual = run.format_and_scoring(task, split)
    if own_scoring(usual) is not None:
        scoring = None
    return EvaluateJob(
        dtype=run.spec.dtype, engine=engine_of(run, intervention), intervention=intervention,
        task=run.task(task), shots=shots, seed=seed, examples=examples, repeat=repeat,
        format=written, scoring=scoring or usual, split=split,
        demonstrations=run.recipe.sources(task, shown), purpose=purpose, canary=canary)


def with_baseline(job: Asking, canary: Canary | None = None) -> tuple[Asking, Asking]:
    """A job, and the untouched model's answers of the same engine, as answers are compared.

    Where that is the engine of the untouched model anyway, the unit is the same.
    """
    return job, replace(job, intervention=BASELINE, canary=canary)


def engine_of(run: ModelRun, intervention: Intervention) -> EngineName:
    """The kind of engine that answers for a model under an intervention here."""
    return choose_engine(run.recipe.engine, run.info, intervention.kind)
