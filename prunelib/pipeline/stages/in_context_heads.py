"""In-context heads: found, removed, read, and rid of two biases that they cause.

The study of papers.md §4 over the same units as everything else: heads are components, a set of
them is an ablation, and which label a model says under it is a prediction. Heads are found on the
attribute split of one task; all that is reported is of report splits.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from prunelib.components import Component
from prunelib.engines.base import Completion, Prompt
from prunelib.errors import UnitError, UserError
from prunelib.identity import seed_of
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.models import ModelInfo, adapter_for
from prunelib.pipeline.stages.evaluation import canaries, canary_answers, engine_of
from prunelib.pipeline.stages.search import Entry, record_ablations
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.rows import Row, prediction_rows, score_row
from prunelib.pipeline.units.unit import (
    HeadReadingsJob,
    HeadScoresJob,
    LabelBiasJob,
    LabelledJob,
    LabelledPrompts,
    Unit,
)
from prunelib.recipe.heads import InContextHeadsSpec
from prunelib.recipe.recipe import Recipe
from prunelib.tasks import Split, draw_labelled, orders, relabelled

if TYPE_CHECKING:
    from prunelib.heads.labelled import LabelledPrompt
    from prunelib.models import Loaded
    from prunelib.pipeline.units.worker import Worker

logger = logging.getLogger(__name__)

#: What the two labels are called in names of scores and roles.
_PLACES = ("first", "second")
_MITIGATIONS: tuple[Literal["minority_boost", "without_positions"], ...] = (
    "minority_boost", "without_positions")


def check_in_context(recipe: Recipe, spec: InContextHeadsSpec, info: ModelInfo) -> None:
    """Raise :class:`UserError` if a model cannot be studied as a recipe asks."""
    from prunelib.heads.labelled import encode_labelled
    from prunelib.models.loading import load_tokenizer

    if adapter_for(info.model_type).final_norm is None:
        raise UserError(f"in_context_heads: what one head of '{info.id}' ({info.model_type}) says "
                        "cannot be read, as its output is normalised before it is added: leave "
                        "the model out")
    have, sets = info.layers * info.heads, 4 if spec.random else 2
    if sets * spec.heads > have:
        what = ", and as many random ones, are" if spec.random else " are"
        raise UserError(f"in_context_heads: model '{info.id}' has {have} heads; {spec.heads} of "
                        f"each label{what} {sets * spec.heads}: use heads: {have // sets} or fewer")
    for name in spec.tasks:
        task = relabelled(recipe.task(name), spec.labels)
        examples = draw_labelled(task, split="report", counts=(spec.each, spec.each), seed=0,
                                 count=2, prompt_format=spec.format)
        try:
            encode_labelled(task, examples, load_tokenizer(info))
        except (UserError, UnitError) as error:
            raise UserError(f"in_context_heads: model '{info.id}', task '{name}': {error}"
                            ) from error


def in_context(run: ModelRun) -> Iterator[list[Unit]]:
    """Find in-context heads, then remove them, read them and mitigate what they cause."""
    spec = run.recipe.in_context_heads
    if spec is None:
        return
    scored = [run.unit(HeadScoresJob(_prompts(run, spec, spec.task, spec.seeds, "attribute"),
                                     layer, run.spec.dtype),
                       cost=1.0 if layer is None else 1.0 + run.info.heads)
              for layer in (None, *range(run.info.layers))]
    yield scored
    entries = _entries(run, spec, *_found(run, spec, scored))
    record_ablations(run, entries, "heads")
    prompt = run.prompts(spec.task, "attribute", 1, 0, range(1))
    asked = canaries(run, entries, prompt, 0)
    # What needs no engine comes before one is started beside it.
    yield asked + _readings(run, spec, entries) + _biases(run, spec, entries)
    expected = canary_answers(run, asked)
    yield [run.unit(LabelledJob(_prompts(run, spec, task, (seed,)), entry.ablation, engine_of(run),
                                run.spec.dtype, expected[entry.ablation.digest]))
           for entry in entries for task in spec.tasks for seed in spec.seeds]


def _prompts(run: ModelRun, spec: InContextHeadsSpec, task: str, seeds: tuple[int, ...],
             split: Split = "report") -> LabelledPrompts:
    written = "own" if run.recipe.task(task).format else spec.format
    return LabelledPrompts(run.task(task), spec.labels, split, spec.each, seeds, spec.prompts,
                           written)


def _found(run: ModelRun, spec: InContextHeadsSpec, scored: list[Unit]
           ) -> tuple[tuple[Component, ...], tuple[Component, ...]]:
    """The heads of the first label and those of the second."""
    from prunelib.heads.in_context import in_context_heads

    table = run.store.read("component_scores", [unit.id for unit in scored])
    scores: dict[str, NDArray[np.float64]] = {
        f"{score}_{place}_label": np.full((run.info.layers, run.info.heads), np.nan)
        for score in ("causal", "log_probability_increase") for place in _PLACES}
    columns = table.select(["score", "layer", "index", "value"]).to_pydict()
    for score, layer, index, value in zip(*columns.values(), strict=True):
        scores[score][layer, index] = value
    causal, increase = (np.stack([scores[f"{score}_{place}_label"] for place in _PLACES])
                        for score in ("causal", "log_probability_increase"))
    found = in_context_heads(causal, increase, spec.top, spec.heads)
    for label, heads in zip(spec.labels, found, strict=True):
        if not heads:
            logger.warning("%s: no head does anything for label '%s' of task '%s'", run.info.id,
                           label, spec.task)
    return found


def _entries(run: ModelRun, spec: InContextHeadsSpec, *found: tuple[Component, ...]
             ) -> list[Entry]:
    """The untouched model, without the heads of both labels, of each, without random others."""
    both = [head for heads in found for head in heads]
    entries = [Entry(BASELINE, "none", "baseline")]
    for role, heads in (("in_context", both), ("in_context_first", found[0]),
                        ("in_context_second", found[1])):
        if heads:
            entries.append(Entry(Ablation.of(heads), "in_context_heads", role, "head"))
    others = [head for layer in range(run.info.layers) for index in range(run.info.heads)
              if (head := Component(layer, "head", index)) not in both]
    for seed in range(spec.random if both else 0):
        rng = random.Random(seed_of("in_context_random", len(both), seed))  # noqa: S311
        entries.append(Entry(Ablation.of(rng.sample(others, len(both))), "random",
                             "in_context_random", "head", seed=seed))
    return entries


def _chosen(entries: Sequence[Entry]) -> Ablation:
    """The heads of both labels."""
    return next((e.ablation for e in entries if e.role == "in_context"), BASELINE)


def _readings(run: ModelRun, spec: InContextHeadsSpec, entries: Sequence[Entry]) -> list[Unit]:
    heads = _chosen(entries)
    return [run.unit(HeadReadingsJob(_prompts(run, spec, spec.task, spec.seeds), heads,
                                     run.spec.dtype), priority=1)] if len(heads) else []


def _biases(run: ModelRun, spec: InContextHeadsSpec, entries: Sequence[Entry]) -> list[Unit]:
    """Every task and seed, without a mitigation and with each."""
    heads = _chosen(entries)
    units = []
    for task in spec.tasks if spec.biases else ():
        for seed in spec.seeds:
            prompts = _prompts(run, spec, task, (seed,))
            jobs = [LabelBiasJob(prompts, "none", BASELINE, None, None, spec.orders,
                                 run.spec.dtype)]
            jobs += [LabelBiasJob(
                prompts, mitigation, heads,
                spec.strength if mitigation == "minority_boost" else None,
                spec.mode if mitigation == "without_positions" else None,
                spec.orders, run.spec.dtype) for mitigation in _MITIGATIONS if len(heads)]
            units += [run.unit(job, 3.0 + spec.orders, priority=1) for job in jobs]
    return units


def _encoded(unit: Unit, prompts: LabelledPrompts, reverse: bool = False) -> list[LabelledPrompt]:
    """The prompts as token ids; :class:`UnitError` if one is too long for the model."""
    from prunelib.engines.limits import check_scorable, model_limits
    from prunelib.heads.labelled import encode_labelled
    from prunelib.models.loading import load_tokenizer

    found = encode_labelled(prompts.relabelled, prompts.draw(reverse), load_tokenizer(unit.model))
    check_scorable([p.ids for p in found], [p.labels for p in found], *model_limits(unit.model))
    return found


def perform_head_scores(worker: Worker, unit: Unit, job: HeadScoresJob) -> list[Row]:
    """Log-probability increase of every head, or accuracy changes without each of a layer."""
    from prunelib.heads.in_context import accuracy_changes, log_probability_increase
    from prunelib.heads.labelled import ROWS

    loaded, prompts = worker.loaded(unit.model, job.dtype), _encoded(unit, job.prompts)
    task, rows = job.prompts.relabelled, max(1, ROWS >> worker.halvings)
    if job.layer is None:
        name, scores = "log_probability_increase", log_probability_increase(loaded, prompts, rows)
    else:
        name, scores = "causal", accuracy_changes(loaded, prompts, [job.layer], rows)
    return [score_row(unit, Component(int(layer), "head", int(index)), f"{name}_{place}_label",
                      values[layer, index], len(prompts), task.name, 2 * job.prompts.each)
            for place, values in zip(_PLACES, scores, strict=True)
            for layer, index in np.argwhere(~np.isnan(values))]


def perform_head_readings(worker: Worker, unit: Unit, job: HeadReadingsJob) -> list[Row]:
    """Attention to labels and what is read there, as they are and after they changed places."""
    from prunelib.heads.label_readings import label_readings
    from prunelib.heads.labelled import ROWS

    loaded, task = worker.loaded(unit.model, job.dtype), job.prompts.relabelled
    found = []
    for reverse in (False, True):
        prompts = _encoded(unit, job.prompts, reverse)
        readings = label_readings(loaded, prompts, job.heads.components,
                                  max(1, ROWS >> worker.halvings))
        for name in ("attention", "logit_minus", "value_minus"):
            values = readings.by_label(getattr(readings, name))
            found += [
                score_row(unit, head, f"{name}{'_reversed' if reverse else ''}_{place}_label",
                          values[i, j], len(prompts), task.name, 2 * job.prompts.each)
                for i, head in enumerate(job.heads.components) for j, place in enumerate(_PLACES)
                if not np.isnan(values[i, j])]  # nothing is paid, so what is read is not known
    return found


def perform_labelled(worker: Worker, unit: Unit, job: LabelledJob) -> list[Row]:
    """Rows of ``predictions``: the more probable label is what the model says."""
    from prunelib.heads.labelled import predicted

    task, prompts = job.prompts.relabelled, _encoded(unit, job.prompts)
    engine = worker.engine(unit, job.engine, job.dtype, job.ablation, job.canary)
    found = engine.logprobs([p.ids for p in prompts], [p.labels for p in prompts])
    said = [Completion((prompt.labels[label],), task.options[label])
            for prompt, label in zip(prompts, predicted(np.array(found)), strict=True)]
    rows = prediction_rows(unit, task, engine.kind, job.prompts.format, 0, job.ablation.digest,
                           job.prompts.draw(), [Prompt(p.ids, 1) for p in prompts], said)
    return [row | {"split": "in_context"} for row in rows]


def perform_label_bias(worker: Worker, unit: Unit, job: LabelBiasJob) -> list[Row]:
    """Rows of ``label_biases``; one that says why, where a model refuses a mitigation."""
    from prunelib.heads.label_bias import measure_biases
    from prunelib.heads.labelled import ROWS

    prompts, task = job.prompts, job.prompts.relabelled
    _encoded(unit, prompts)  # those that are measured are as long at most
    loaded = worker.loaded(unit.model, job.dtype)
    about = {"model": unit.model.id, "engine": "transformers", "task": task.name,
             "seed": prompts.seeds[0], "mitigation": job.mitigation, "strength": job.strength,
             "mode": job.mode, "heads": len(job.heads), "prompts": prompts.count,
             "unit_id": unit.id}
    try:
        found = measure_biases(
            loaded, task, split=prompts.split, each=prompts.each, seed=prompts.seeds[0],
            count=prompts.count, order_count=job.orders, prompt_format=prompts.format,
            within=_mitigation(loaded, job), rows=max(1, ROWS >> worker.halvings))
    except UserError as error:
        if job.mitigation == "none":
            raise
        logger.warning("%s: %s is left out: %s", unit.model.id, job.mitigation, error)
        return [about | {"demonstrations": "balanced", "order": None, "accuracy": None,
                         "error": str(error)}]
    measured: list[tuple[str, list[int] | None, float]] = [
        ("balanced", None, found.balanced),
        *((place, None, accuracy) for place, accuracy in zip(_PLACES, found.minus_one,
                                                             strict=True)),
        *(("order", list(order), accuracy) for order, accuracy in zip(
            orders(2 * prompts.each, job.orders, prompts.seeds[0]), found.by_order, strict=True))]
    return [about | {"demonstrations": demonstrations, "order": order, "accuracy": accuracy,
                     "error": None} for demonstrations, order, accuracy in measured]


def _mitigation(loaded: Loaded, job: LabelBiasJob
                ) -> Callable[[Sequence[LabelledPrompt]], AbstractContextManager[Any]] | None:
    """The context in which some prompts are read."""
    from prunelib.interventions.label_bias import minority_boost, without_positions

    heads = job.heads.components
    if job.mitigation == "minority_boost":
        return lambda some: minority_boost(
            loaded, heads, [prompt.minority[0] for prompt in some],
            [prompt.minority[1] for prompt in some], job.strength or 0.0)
    if job.mitigation == "without_positions":
        return lambda some: without_positions(loaded, heads, job.mode or "replace")
    return None
