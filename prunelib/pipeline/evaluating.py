"""The third stage: every chosen ablation and control on the tasks that are reported."""

from __future__ import annotations

from prunelib.components import BASELINE
from prunelib.engines.choose import choose_engine
from prunelib.pipeline.attributing import Ranking
from prunelib.pipeline.model_run import ModelRun
from prunelib.pipeline.performing import canary_of
from prunelib.pipeline.searching import Entry
from prunelib.pipeline.units import CanaryJob, EvaluateJob, Unit


def canaries(run: ModelRun, entries: list[Entry], first: Ranking, priority: int) -> list[Unit]:
    """One prompt under every ablation, to be answered alike by the engine."""
    searched = run.searched(first.arm, first.sample)
    prompt = run.prompts(searched.task.name, searched.split, searched.shots, searched.seed,
                         searched.indices[:1])
    different = {entry.ablation.digest: entry.ablation for entry in entries}
    return [run.unit(CanaryJob(prompt, ablation, run.spec.dtype), priority=priority)
            for ablation in different.values()]


def evaluation(run: ModelRun, entries: list[Entry], asked: list[Unit], extras: bool
               ) -> list[Unit]:
    """Every ablation on its tasks; the baseline twice, for the noise floor (an extra)."""
    rows = run.store.read("canaries", [unit.id for unit in asked]).to_pylist()
    expected = {row["ablation"]: canary_of(row) for row in rows}
    spec = run.recipe.evaluate
    engine = choose_engine(run.recipe.engine, run.info)
    # Only a deadline is worth ending an engine whose model still has extras to do.
    hurry = run.recipe.deadline is not None
    urgent = {e.ablation.digest for e in entries if e.method != "random_search" and not e.seed}
    passes = {(e.ablation, 0, task): None for e in entries
              for task in (spec.tasks if e.only is None or spec.transfer else (e.only,))}
    if extras:
        passes |= {(BASELINE, 1, task): None for task in spec.tasks}
    return [
        run.unit(
            EvaluateJob(
                run.task(task), shots, seed, spec.examples, repeat, *run.written(task), ablation,
                engine="vllm" if engine == "vllm" else "transformers",
                dtype=run.spec.dtype, canary=expected[ablation.digest],
            ),
            priority=int(hurry and (repeat > 0 or ablation.digest not in urgent)),
        )
        for ablation, repeat, task in passes
        for shots in spec.shots
        for seed in spec.seeds
    ]  # fmt: skip
