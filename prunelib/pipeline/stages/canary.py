"""The canary stage: one prompt under every ablation, which every engine must answer alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from prunelib.engines.base import Canary
from prunelib.interventions.base import Intervention
from prunelib.pipeline.units.left_out import usable
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import PromptsRef
from prunelib.pipeline.units.steps import Step, needs
from prunelib.pipeline.units.unit import Job, Row, Unit, Workplace
from prunelib.tasks import Split
from prunelib.vocabulary import Stage

#: Prompts among which one is looked for that the model can read.
_LOOKED = 4
#: How many next tokens a canary compares.
_TOKENS = 8


@dataclass(frozen=True)
class CanaryJob(Job):
    """What a model under an ablation must answer to one prompt, according to transformers."""

    kind: ClassVar[str] = "canary"
    stage: ClassVar[Stage] = "canary"
    table: ClassVar[str] = "canaries"

    prompts: PromptsRef
    ablation: Intervention

    def describe(self) -> str:
        return str(self.ablation)

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        import torch

        from prunelib.attribution.prefix_replay import last_logits
        from prunelib.tasks.tokenization import pad_left, token_ids

        loaded = worker.loaded(unit.model, self.dtype)
        prompt = self.prompts.draw()[1][0]
        ids = token_ids(prompt.prompt, loaded.tokenizer, prompt.templated)
        batch = pad_left([ids], loaded.device)
        with torch.no_grad(), self.ablation.applied(loaded) as changed:
            logits = last_logits(changed, batch)
        best = logits[0].float().log_softmax(-1).topk(_TOKENS)
        return [
            {
                "model": unit.model.id,
                "intervention": self.ablation.digest,
                "token_ids": list(ids),
                "candidates": best.indices.tolist(),
                "logprobs": best.values.tolist(),
                "unit_id": unit.id,
            }
        ]


def canary_prompt(run: ModelRun, task: str, split: Split, shots: int) -> PromptsRef:
    """The first prompt of a task that the model can read."""
    asked = usable(run, run.prompts(task, split, shots, 0, range(_LOOKED)))
    return replace(asked, indices=asked.indices[:1])


def canaries(run: ModelRun, ablations: Iterable[Intervention], prompt: PromptsRef, priority: int = 0
             ) -> list[Unit]:
    """One prompt under every ablation."""
    return [run.unit(CanaryJob(run.spec.dtype, prompt, ablation), priority=priority)
            for ablation in ablations]


def canary_answers(run: ModelRun, asked: Sequence[Unit]) -> dict[str, Canary]:
    """By digest, what the model must answer under each ablation."""
    rows = run.store.read("canaries", [unit.id for unit in asked]).to_pylist()
    return {row["intervention"]: Canary(tuple(row["token_ids"]), tuple(row["candidates"]),
                                        tuple(row["logprobs"])) for row in rows}


def checked(run: ModelRun, ablations: Iterable[Intervention], prompt: PromptsRef, priority: int = 0
            ) -> Step[dict[str, Canary]]:
    """By digest, what the model must answer under each ablation, after it was asked."""
    asked = canaries(run, ablations, prompt, priority)
    yield needs(asked)
    return canary_answers(run, asked)
