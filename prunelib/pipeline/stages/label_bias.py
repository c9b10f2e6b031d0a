"""The label bias stage: the answers behind two biases, with and without mitigations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from prunelib.errors import UserError
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import LabelledPromptsRef
from prunelib.pipeline.units.unit import Job, Row, Unit, Workplace
from prunelib.recipe.heads import InContextHeadsSpec
from prunelib.vocabulary import Stage

if TYPE_CHECKING:
    from prunelib.heads.labelled import LabelledPrompt
    from prunelib.models import Loaded

logger = logging.getLogger(__name__)

#: What the two labels are called in names of scores and roles.
LABEL_PLACES = ("first", "second")
Mitigation = Literal["minority_boost", "without_positions"]
MITIGATIONS: tuple[Mitigation, ...] = ("minority_boost", "without_positions")


@dataclass(frozen=True)
class LabelBiasJob(Job):
    """Answers behind majority-label and recency bias, with or without a mitigation in some heads.

    One row without an answer says why, where a model refuses the mitigation.
    """

    kind: ClassVar[str] = "label_bias"
    stage: ClassVar[Stage] = "evaluate"
    table: ClassVar[str] = "label_answers"

    prompts: LabelledPromptsRef
    #: ``none``, or what is done in which heads.
    mitigation: Mitigation | Literal["none"]
    heads: Ablation
    strength: float | None
    mode: Literal["replace", "add"] | None
    orders: int

    def describe(self) -> str:
        return f"label biases, {self.prompts.task.name}, mitigation {self.mitigation}"

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        from prunelib.heads.label_bias import ask_conditions
        from prunelib.heads.labelled import LABELLED_ROWS, predicted, right

        prompts, task, seed = self.prompts, self.prompts.relabelled, self.prompts.seeds[0]
        prompts.encode(unit.model)  # those that are asked are as long at most
        loaded = worker.loaded(unit.model, self.dtype)
        about = {"model": unit.model.id, "engine": "transformers", "task": task.name,
                 "seed": seed, "mitigation": self.mitigation, "strength": self.strength,
                 "mode": self.mode, "heads": len(self.heads), "unit_id": unit.id}
        rows: list[Row] = []
        try:
            for number, condition in enumerate(ask_conditions(
                    loaded, task, split=prompts.split, each=prompts.each, seed=seed,
                    count=prompts.count, order_count=self.orders, prompt_format=prompts.format,
                    within=self._mitigated(loaded),
                    rows=max(1, LABELLED_ROWS >> worker.batch_halvings),
                    left_out=[example for _, example in prompts.left_out])):
                here = about | {"condition": number, "demonstrations": condition.name,
                                "order": condition.order, "error": None}
                correct = right(condition.prompts, condition.logprobs)
                rows += [here | {
                    "example": example.example, "query": example.query, "gold": example.gold,
                    "prediction": task.options[said], "correct": bool(hit),
                    "first_logprob": float(first), "second_logprob": float(second),
                } for example, said, hit, (first, second) in zip(
                    condition.examples, predicted(condition.logprobs), correct,
                    condition.logprobs, strict=True)]
        except UserError as error:
            if self.mitigation == "none":
                raise
            logger.warning("%s: %s is left out: %s", unit.model.id, self.mitigation, error)
            return [about | dict.fromkeys((
                "condition", "demonstrations", "order", "example", "query", "gold", "prediction",
                "correct", "first_logprob", "second_logprob")) | {"error": str(error)}]
        return rows

    def _mitigated(self, loaded: Loaded
                   ) -> Callable[[Sequence[LabelledPrompt]], AbstractContextManager[Any]] | None:
        """The context in which some prompts are read."""
        from prunelib.interventions.label_bias import minority_boost, without_positions

        heads = self.heads.components
        if self.mitigation == "minority_boost":
            return lambda some: minority_boost(
                loaded, heads, [prompt.minority[0] for prompt in some],
                [prompt.minority[1] for prompt in some], self.strength or 0.0)
        if self.mitigation == "without_positions":
            return lambda some: without_positions(loaded, heads, self.mode or "replace")
        return None


def label_biases(run: ModelRun, spec: InContextHeadsSpec, prompts: Sequence[LabelledPromptsRef],
                 heads: Ablation) -> list[Unit]:
    """Each task and seed, without a mitigation and, if there are heads, with each in these."""
    units = []
    for some in prompts if spec.biases else ():
        jobs = [LabelBiasJob(run.spec.dtype, some, "none", BASELINE, None, None, spec.orders)]
        jobs += [LabelBiasJob(
            run.spec.dtype, some, mitigation, heads,
            spec.strength if mitigation == "minority_boost" else None,
            spec.mode if mitigation == "without_positions" else None,
            spec.orders) for mitigation in MITIGATIONS if len(heads)]
        units += [run.unit(job, 3.0 + spec.orders, priority=1) for job in jobs]
    return units
