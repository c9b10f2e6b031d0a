"""The search among steerings: each candidate on the same examples, by the transformers engine."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunelib.engines.limits import model_limits
from prunelib.interventions.steering import Steering
from prunelib.pipeline.stages.search import own_choices
from prunelib.pipeline.units.prompts import PromptsRef, tokenized
from prunelib.pipeline.units.rows import prediction_rows
from prunelib.pipeline.units.unit import Job, Row, Unit, Workplace
from prunelib.tasks import own_scoring
from prunelib.vocabulary import Purpose, Scoring, Stage

if TYPE_CHECKING:
    from prunelib.engines.base import Engine
    from prunelib.tasks.tokenization import Encoded


@dataclass(frozen=True)
class SteeringJob(Job):
    """Several steerings, one after the other, on the same examples."""

    kind: ClassVar[str] = "steering"
    stage: ClassVar[Stage] = "search"
    table: ClassVar[str] = "predictions"
    purpose: ClassVar[Purpose] = "search"

    prompts: PromptsRef
    scoring: Scoring
    steerings: tuple[Steering, ...]

    def describe(self) -> str:
        return f"{len(self.steerings)} steerings"

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        from prunelib.engines.multiple_choice import answers_of
        from prunelib.engines.transformers import TransformersEngine
        from prunelib.tasks.tokenization import encode

        own = own_scoring(self.scoring)
        if own is not None:
            return own_choices(worker, unit, self.prompts, own, self.steerings, self.purpose)
        loaded = worker.loaded(unit.model, self.dtype)
        task, examples = self.prompts.draw()
        prompts = tokenized(task, examples, loaded.tokenizer)
        encoded = [encode(example, loaded.tokenizer) for example in examples]
        engine = TransformersEngine(loaded)
        engine.batch_tokens >>= worker.batch_halvings
        rows: list[Row] = []
        with closing(engine):
            for steering in self.steerings:
                engine.switch(steering)
                answers = (engine.generate(prompts) if self.scoring == "greedy" else answers_of(
                    engine, task, examples, loaded.tokenizer, model_limits(unit.model)))
                found = prediction_rows(
                    unit.model.id, unit.id, task, engine.kind, self.prompts.format, 0,
                    steering.digest, self.purpose, examples, prompts, answers, self.scoring)
                rows += [row | {"margin": margin} for row, margin in zip(
                    found, _margins(engine, encoded), strict=True)]
        return rows


def _margins(engine: Engine, prompts: list[Encoded]) -> list[float]:
    """Margin (:class:`prunelib.search.grid.Answers`) of every prompt."""
    import numpy as np

    found = engine.logprobs([p.prompt for p in prompts],
                            [(p.first_gold, *p.first_copies) for p in prompts])
    return [float(gold - (np.logaddexp.reduce(copies) if copies else 0.0))
            for gold, *copies in found]
