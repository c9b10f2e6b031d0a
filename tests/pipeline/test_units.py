from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from prunelib.engines.base import Canary
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.models import ModelInfo
from prunelib.pipeline import stages
from prunelib.pipeline.stages.capability import LikelihoodJob, Texts
from prunelib.pipeline.stages.evaluation import EvaluateJob
from prunelib.pipeline.units.prompts import TaskRef
from prunelib.pipeline.units.unit import Job, Unit
from prunelib.pipeline.units.worker import Worker
from prunelib.results.schemas import TABLES
from prunelib.results.storage.store import Store
from prunelib.vocabulary import STAGES

JOB = EvaluateJob("float32", "vllm", BASELINE, TaskRef("to_upper", "d"), 2, 0, 10, 0, "arrow",
                  "greedy")


def test_an_id_holds_everything_that_determines_the_output(info: ModelInfo) -> None:
    base = Unit(info, JOB).id
    changed = [
        replace(JOB, task=TaskRef("to_lower", "d")), replace(JOB, task=TaskRef("to_upper", "e")),
        replace(JOB, shots=3),
        replace(JOB, seed=1), replace(JOB, examples=11), replace(JOB, repeat=1),
        replace(JOB, format="comma"), replace(JOB, scoring="options"),
        replace(JOB, intervention=Ablation.of_layer(0, [1])),
        replace(JOB, engine="transformers"), replace(JOB, dtype="bfloat16"),
        replace(JOB, split="search"), replace(JOB, purpose="capability"),
    ]  # fmt: skip
    ids = {Unit(info, job).id for job in changed}
    ids.add(Unit(replace(info, weights_digest="other"), JOB).id)
    ids.add(Unit(replace(info, tokenizer_digest="other"), JOB).id)
    assert len(ids) == len(changed) + 2 and base not in ids


def test_texts_are_what_they_say(info: ModelInfo) -> None:
    content = (("", "one text"), ("before", "another"))
    job = LikelihoodJob("float32", Texts.of("prose", content), BASELINE)
    changed = [
        replace(job, texts=Texts.of("other", content)),
        replace(job, texts=Texts.of("prose", content[:1])),
        replace(job, texts=Texts.of("prose", (content[0], ("", "beforeanother")))),
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


def test_an_id_does_not_change_with_the_name_of_a_class(info: ModelInfo) -> None:
    @dataclass(frozen=True)
    class Renamed(EvaluateJob):
        pass

    fields = {f.name: getattr(JOB, f.name) for f in dataclasses.fields(JOB)}
    assert Unit(info, Renamed(**fields)).id == Unit(info, JOB).id


def test_every_kind_of_job_has_a_kind_of_its_own() -> None:
    """And a stage and a table that there are."""
    for module in pkgutil.iter_modules(stages.__path__, "prunelib.pipeline.stages."):
        importlib.import_module(module.name)
    jobs = [job for job in subclasses(Job) if not inspect.isabstract(job)
            and job.__module__.startswith("prunelib.")]
    kinds = [job.kind for job in jobs]
    assert len(jobs) > 10 and len(set(kinds)) == len(kinds)
    assert {job.stage for job in jobs} <= STAGES.keys()
    assert {job.table for job in jobs} <= TABLES.keys()


def test_an_engine_in_transformers_computes_in_one_thread(
    info: ModelInfo, tmp_path: Path
) -> None:
    """Also where nothing was attributed before: numbers depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        worker = Worker(Store.open(tmp_path))
        worker.engine(Unit(info, JOB), "transformers", "float32", BASELINE, None)
        assert torch.get_num_threads() == 1
        worker.forget()
    finally:
        torch.set_num_threads(before)


def subclasses(of: type[Job]) -> list[type[Job]]:
    return [found for direct in of.__subclasses__() for found in (direct, *subclasses(direct))]
