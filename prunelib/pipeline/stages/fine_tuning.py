"""The fine-tuning control: the same samples as pruning has seen, all parameters tuned on them."""

from __future__ import annotations

from prunelib.interventions.fine_tuning import FineTuning
from prunelib.pipeline.stages.evaluation import evaluate_job, with_baseline
from prunelib.pipeline.stages.intervention_records import InterventionRecord, record_interventions
from prunelib.pipeline.stages.lm_eval import lm_eval
from prunelib.pipeline.stages.rankings import Ranking
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.unit import Unit


def fine_tuning(run: ModelRun, rankings: list[Ranking]) -> list[Unit]:
    """Units of the control: the main rankings' samples, on the tasks they report."""
    settings, spec = run.recipe.controls.fine_tuning, run.recipe.evaluate
    if settings is None:
        return []
    units: list[Unit] = []
    records: list[InterventionRecord] = []
    for ranking in (r for r in rankings if r.request.main and not r.random):
        examples = ranking.sample.draw()[1]
        tuned = FineTuning(tuple((e.prompt, e.lead + e.gold) for e in examples), settings,
                           any(example.templated for example in examples))
        only = ranking.request.only
        units += [
            run.unit(job, priority=1)
            for task in (spec.tasks if only is None else (only,))
            for shots in spec.shots
            for seed in spec.seeds
            for job in with_baseline(evaluate_job(run, task, shots, seed, run.recipe.examples(task),
                                                  tuned, None))
        ]
        records.append(InterventionRecord(tuned, "fine_tuning", "control", seed=ranking.seed,
                                          proxy=ranking.request.task, only=only,
                                          samples=len(examples)))
    record_interventions(run, records, "fine-tuning")
    return units + lm_eval(run, [record.intervention for record in records], {}, 1)
