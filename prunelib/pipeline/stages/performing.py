"""Performing units: what each kind of job does, with what a worker keeps in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from prunelib.engines.base import Completion
from prunelib.pipeline.stages.fine_tuning import perform_fine_tuning, perform_task_vectors
from prunelib.pipeline.stages.head_importance import perform_importance, perform_induction
from prunelib.pipeline.stages.in_context_heads import (
    perform_head_readings,
    perform_head_scores,
    perform_label_bias,
    perform_labelled,
)
from prunelib.pipeline.units.rows import (
    Row,
    examples_of,
    prediction_rows,
    prompts_of,
    reported_rows,
)
from prunelib.pipeline.units.unit import (
    AttributeJob,
    CanaryJob,
    EvaluateJob,
    FineTuneJob,
    GridJob,
    HeadReadingsJob,
    HeadScoresJob,
    ImportanceJob,
    InductionJob,
    LabelBiasJob,
    LabelledJob,
    LikelihoodJob,
    PoolJob,
    Prompts,
    ScoreJob,
    TaskVectorJob,
    Unit,
)

if TYPE_CHECKING:
    from prunelib.pipeline.units.worker import Worker

#: How many next tokens a canary compares.
_CANARY_TOKENS = 8


def perform(worker: Worker, unit: Unit) -> list[Row]:
    """The rows that a unit's one file consists of."""
    return _PERFORM[type(unit.job)](worker, unit, unit.job)


def _attribute(worker: Worker, unit: Unit, job: AttributeJob) -> list[Row]:
    from prunelib.attribution import quadrature
    from prunelib.attribution.integrated_gradients import ROWS, Path, block_gradients
    from prunelib.attribution.objectives import make_objective
    from prunelib.tasks.tokenization import encode

    loaded = worker.loaded(unit.model, job.dtype)
    prompts = [encode(example, loaded.tokenizer) for example in examples_of(job.prompts)[1]]
    path = Path(job.layers, *loaded.adapter.projection(job.projection),
                last_position=job.path == "last_position", released=job.released)
    objective = make_objective(job.objective, job.objective_digest)
    found = block_gradients(loaded, path, prompts, objective, quadrature.new_nodes(job.level),
                            ROWS >> worker.halvings)
    return [
        _part(unit, job.prompts, layer, job.level, float(alpha), part.sums[i], part.totals[i],
              part.values[i])
        for layer, part in zip(job.layers, found, strict=True)
        for i, alpha in enumerate(part.alphas)
    ]


def _score(worker: Worker, unit: Unit, job: ScoreJob) -> list[Row]:
    from prunelib.attribution.integrated_gradients import ROWS, Path
    from prunelib.attribution.objectives import make_objective
    from prunelib.attribution.scorers import SCORERS
    from prunelib.tasks.tokenization import encode

    loaded = worker.loaded(unit.model, job.dtype)
    prompts = [encode(example, loaded.tokenizer) for example in examples_of(job.prompts)[1]]
    path = Path(job.layers, *loaded.adapter.projection(job.projection))
    objective = make_objective(job.objective, job.objective_digest)
    scores = SCORERS[job.method](loaded, path, prompts, objective, ROWS >> worker.halvings)
    return [_part(unit, job.prompts, layer, 0, 1.0, of_layer * len(prompts), [], [])
            for layer, of_layer in zip(job.layers, scores, strict=True)]


def _part(unit: Unit, prompts: Prompts, layer: int, level: int, alpha: float, sums: Any,
          totals: Any, values: Any) -> Row:
    return {"model": unit.model.id, "layer": layer, "start": prompts.indices[0], "level": level,
            "alpha": alpha, "sums": sums, "totals": totals, "values": values, "unit_id": unit.id}


def _grid(worker: Worker, unit: Unit, job: GridJob) -> list[Row]:
    from prunelib.engines.limits import stop_token_ids
    from prunelib.search.grid import ROWS, greedy_rows
    from prunelib.tasks.tokenization import answer_tokens, encode

    loaded = worker.loaded(unit.model, job.dtype)
    task, examples = examples_of(job.prompts)
    prompts = prompts_of(examples, loaded.tokenizer)
    answers = greedy_rows(loaded, job.layer, job.ablations,
                          [encode(example, loaded.tokenizer) for example in examples],
                          max(p.max_tokens for p in prompts),
                          stop_token_ids(loaded.tokenizer), ROWS >> worker.halvings,
                          None if job.scoring == "greedy" else [
                              answer_tokens(example, task.options, loaded.tokenizer)[1]
                              for example in examples])
    rows: list[Row] = []
    for ablation, tokens, margins in zip(job.ablations, answers.tokens, answers.margins,
                                         strict=True):
        completions = [
            Completion(tuple(ids), str(loaded.tokenizer.decode(ids, skip_special_tokens=True)))
            for ids in tokens
        ]
        found = prediction_rows(unit, task, "transformers", job.prompts.format, 0,
                                ablation.digest, examples, prompts, completions)
        rows += [row | {"margin": float(margin)}
                 for row, margin in zip(found, margins, strict=True)]
    return rows


def _canary(worker: Worker, unit: Unit, job: CanaryJob) -> list[Row]:
    import torch

    from prunelib.attribution.prefix_replay import last_logits
    from prunelib.interventions.ablation import ActivationMasks
    from prunelib.tasks.tokenization import pad_left

    loaded = worker.loaded(unit.model, job.dtype)
    ids = prompts_of(examples_of(job.prompts)[1], loaded.tokenizer)[0].token_ids
    batch = pad_left([ids], loaded.tokenizer.pad_token_id, loaded.device)
    with torch.no_grad(), ActivationMasks(loaded) as masks:
        masks.set(job.ablation)
        logits = last_logits(loaded, batch)
    best = logits[0].float().log_softmax(-1).topk(_CANARY_TOKENS)
    return [
        {
            "model": unit.model.id,
            "ablation": job.ablation.digest,
            "token_ids": list(ids),
            "candidates": best.indices.tolist(),
            "logprobs": best.values.tolist(),
            "unit_id": unit.id,
        }
    ]


def _evaluate(worker: Worker, unit: Unit, job: EvaluateJob) -> list[Row]:
    engine = worker.engine(unit, job.engine, job.dtype, job.ablation, job.canary)
    rows = reported_rows(unit, job, engine, job.ablation.digest, job.repeat,
                         "search" if job.split == "search" else "report")
    return [row | {"split": job.split} for row in rows]


def _likelihood(worker: Worker, unit: Unit, job: LikelihoodJob) -> list[Row]:
    from prunelib.engines.perplexity import perplexity

    contexts, texts = zip(*job.texts.content, strict=True)
    found = perplexity(worker.loaded(unit.model, job.dtype), texts, job.ablation,
                       contexts=contexts)
    about = {"model": unit.model.id, "ablation": job.ablation.digest, "source": job.texts.name,
             "unit_id": unit.id}
    return [about | {"text": i} | asdict(likelihood) for i, likelihood in enumerate(found)]


_PERFORM: dict[type, Callable[[Worker, Unit, Any], list[Row]]] = {
    AttributeJob: _attribute,
    ScoreJob: _score,
    PoolJob: _grid,
    GridJob: _grid,
    CanaryJob: _canary,
    EvaluateJob: _evaluate,
    FineTuneJob: perform_fine_tuning,
    TaskVectorJob: perform_task_vectors,
    LikelihoodJob: _likelihood,
    ImportanceJob: perform_importance,
    InductionJob: perform_induction,
    HeadScoresJob: perform_head_scores,
    HeadReadingsJob: perform_head_readings,
    LabelledJob: perform_labelled,
    LabelBiasJob: perform_label_bias,
}
