from __future__ import annotations

from dataclasses import replace

from prunelib.engines.base import Canary
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.models import ModelInfo
from prunelib.pipeline.units.unit import EvaluateJob, LikelihoodJob, TaskRef, Texts, Unit

JOB = EvaluateJob(TaskRef("to_upper", "d"), 2, 0, 10, 0, "arrow", "greedy", BASELINE,
                  "vllm", "float32")


def test_an_id_holds_everything_that_determines_the_output(info: ModelInfo) -> None:
    base = Unit(info, JOB).id
    changed = [
        replace(JOB, task=TaskRef("to_lower", "d")), replace(JOB, task=TaskRef("to_upper", "e")),
        replace(JOB, shots=3),
        replace(JOB, seed=1), replace(JOB, examples=11), replace(JOB, repeat=1),
        replace(JOB, format="comma"), replace(JOB, scoring="options"),
        replace(JOB, ablation=Ablation.of_layer(0, [1])),
        replace(JOB, engine="transformers"), replace(JOB, dtype="bfloat16"),
        replace(JOB, split="capability"),
    ]  # fmt: skip
    ids = {Unit(info, job).id for job in changed}
    ids.add(Unit(replace(info, weights_digest="other"), JOB).id)
    ids.add(Unit(replace(info, tokenizer_digest="other"), JOB).id)
    assert len(ids) == len(changed) + 2 and base not in ids


def test_texts_are_what_they_say(info: ModelInfo) -> None:
    content = (("", "one text"), ("before", "another"))
    job = LikelihoodJob(Texts("prose", content), BASELINE, "float32")
    changed = [
        replace(job, texts=Texts("other", content)),
        replace(job, texts=Texts("prose", content[:1])),
        replace(job, texts=Texts("prose", (content[0], ("", "beforeanother")))),
        replace(job, ablation=Ablation.of_layer(0, [1])), replace(job, dtype="bfloat16"),
    ]  # fmt: skip
    ids = {Unit(info, j).id for j in (job, *changed)}
    assert len(ids) == len(changed) + 1


def test_an_id_holds_nothing_else(info: ModelInfo) -> None:
    base = Unit(info, JOB).id
    canary = Canary((1,), (2,), (-0.5,))
    assert Unit(info, replace(JOB, canary=canary), cost=9.0, priority=1,
                tensor_parallel=4).id == base
    assert Unit(replace(info, path="/elsewhere", id="other name"), JOB).id == base
