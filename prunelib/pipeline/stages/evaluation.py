"""The third stage: every chosen ablation and control on the tasks that are reported.

And, if a recipe asks for it, on what else a model can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from prunelib.engines.base import Canary
from prunelib.engines.registry import choose_engine
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.pipeline.stages.search import Entry
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.rows import canary_of
from prunelib.pipeline.units.unit import (
    CanaryJob,
    EvaluateJob,
    LikelihoodJob,
    Prompts,
    Texts,
    Unit,
)
from prunelib.recipe.base import CapabilitySpec
from prunelib.recipe.recipe import Recipe
from prunelib.tasks import draw, prose, text_file


def canaries(run: ModelRun, entries: Sequence[Entry], prompt: Prompts, priority: int
             ) -> list[Unit]:
    """One prompt under every ablation, to be answered alike by the engine."""
    return [run.unit(CanaryJob(prompt, ablation, run.spec.dtype), priority=priority)
            for ablation in _different(entries)]


def canary_answers(run: ModelRun, asked: list[Unit]) -> dict[str, Canary]:
    """By digest, what the model must answer under each ablation."""
    rows = run.store.read("canaries", [unit.id for unit in asked]).to_pylist()
    return {row["ablation"]: canary_of(row) for row in rows}


def evaluation(run: ModelRun, entries: list[Entry], asked: list[Unit], extras: bool
               ) -> list[Unit]:
    """Every ablation on its tasks; the baseline twice, for the noise floor (an extra)."""
    expected = canary_answers(run, asked)
    spec = run.recipe.evaluate
    # Only a deadline is worth ending an engine whose model still has extras to do.
    hurry = run.recipe.deadline is not None
    urgent = {e.ablation.digest for e in entries if e.main}
    passes = {(e.ablation, 0, task): None for e in entries
              for task in (spec.tasks if e.only is None or spec.transfer else (e.only,))}
    if extras:
        passes |= {(BASELINE, 1, task): None for task in spec.tasks}
    units = [
        run.unit(
            asking(run, task, shots, seed, spec.examples, ablation, expected[ablation.digest],
                   repeat),
            priority=int(hurry and (repeat > 0 or ablation.digest not in urgent)),
        )
        for ablation, repeat, task in passes
        for shots in spec.shots
        for seed in spec.seeds
    ]  # fmt: skip
    if extras and spec.capability:
        units += _capability(run, spec.capability, _different(entries), expected, int(hurry))
    return units


def _different(entries: Sequence[Entry]) -> list[Ablation]:
    """The ablations, each once."""
    return list({entry.ablation.digest: entry.ablation for entry in entries}.values())


def asking(run: ModelRun, task: str, shots: int, seed: int, examples: int, ablation: Ablation,
           canary: Canary, repeat: int = 0, split: Literal["search", "report"] = "report"
           ) -> EvaluateJob:
    """A task under an ablation."""
    written, scoring = run.written(task, split)
    return EvaluateJob(
        task=run.task(task), shots=shots, seed=seed, examples=examples, repeat=repeat,
        format=written, scoring=scoring, ablation=ablation, engine=engine_of(run),
        dtype=run.spec.dtype, split=split, canary=canary,
    )


def _capability(run: ModelRun, spec: CapabilitySpec, ablations: list[Ablation],
                expected: dict[str, Canary], priority: int) -> list[Unit]:
    """Multiple choice, and how probable texts are, under every ablation."""
    texts = capability_texts(run.recipe, spec)
    # Texts take longest, so go first: one process alone runs them before its engine starts.
    units = [run.unit(LikelihoodJob(texts, ablation, run.spec.dtype), len(texts.content), priority)
             for ablation in ablations]
    questions = [
        replace(asking(run, task, spec.shots, 0, spec.examples, ablation,
                       expected[ablation.digest]), split="capability", scoring="options")
        for ablation in ablations
        for task in spec.tasks
    ]
    return units + [run.unit(job, priority=priority) for job in questions]


def capability_texts(recipe: Recipe, spec: CapabilitySpec) -> Texts:
    """The texts whose probability a recipe asks for. Raises :class:`UserError`."""
    if spec.text == "prose":
        return Texts("prose", tuple(("", text) for text in prose()))
    if spec.text != "prompts":
        return Texts(Path(spec.text).name, tuple(("", text) for text in text_file(spec.text)))
    evaluate = recipe.evaluate
    examples = [
        example
        for name in evaluate.tasks
        for example in draw(recipe.task(name), split="report", shots=max(evaluate.shots), seed=0,
                            count=spec.examples, prompt_format=recipe.format_on("report"))
    ]
    return Texts("prompts", tuple((e.prompt, e.lead + e.gold) for e in examples))


def engine_of(run: ModelRun) -> Literal["transformers", "vllm"]:
    """The kind of engine that answers for a model here."""
    return "vllm" if choose_engine(run.recipe.engine, run.info) == "vllm" else "transformers"
