"""The study of in-context heads: found, removed, read, and rid of two biases that they cause.

The study of formulas.md §4 over the same units as everything else: heads are components, a set of
them is an ablation, and which label a model says under it is a prediction. Heads are found on the
attribute split of one task; all that is reported is of report splits.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from prunelib.components import Component
from prunelib.engines.base import Completion, Prompt
from prunelib.errors import UnitError, UserError
from prunelib.identity import seed_of
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.models import ModelInfo, adapter_for
from prunelib.models.loading import checking_tokenizer, load_tokenizer
from prunelib.pipeline.stages.canary import canaries, canary_answers, canary_prompt
from prunelib.pipeline.stages.evaluation import EngineJob, engine_of
from prunelib.pipeline.stages.intervention_records import (
    AblationRecord,
    distinct,
    record_interventions,
)
from prunelib.pipeline.stages.label_bias import LABEL_PLACES, MITIGATIONS, label_biases
from prunelib.pipeline.stages.study import (
    Count,
    Lengths,
    Study,
    Summary,
    SummaryTable,
    exactly,
    points,
)
from prunelib.pipeline.units.left_out import usable_labelled
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import LabelledPromptsRef
from prunelib.pipeline.units.rows import prediction_rows, score_row
from prunelib.pipeline.units.steps import Batch, Step, needs, offers
from prunelib.pipeline.units.unit import Job, Row, Unit, Workplace
from prunelib.recipe.heads import InContextHeadsSpec
from prunelib.recipe.recipe import Recipe
from prunelib.tasks import Split, draw_labelled, orders, relabelled
from prunelib.vocabulary import Role, Stage

if TYPE_CHECKING:
    import duckdb


logger = logging.getLogger(__name__)

_LABELS = """
SELECT model, task, removed, accuracy, difference_to_random AS difference,
       difference_to_random_low AS difference_low, difference_to_random_high AS difference_high
FROM in_context WHERE run = $1 AND gold IS NULL ORDER BY model, task
"""


@dataclass(frozen=True)
class HeadScoresJob(Job):
    """How much heads do for either label: of all heads, or in one layer what each is worth."""

    kind: ClassVar[str] = "head_scores"
    stage: ClassVar[Stage] = "attribute"
    table: ClassVar[str] = "component_scores"

    prompts: LabelledPromptsRef
    #: In which heads are removed one at a time; ``None``: what the outputs of all heads say.
    layer: int | None

    def describe(self) -> str:
        return "labels said by heads" if self.layer is None else f"heads of layer {self.layer}"

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        from prunelib.heads.in_context import accuracy_changes, log_probability_increase
        from prunelib.heads.labelled import LABELLED_ROWS

        loaded, prompts = worker.loaded(unit.model, self.dtype), self.prompts.encode(unit.model)
        task, rows = self.prompts.relabelled, max(1, LABELLED_ROWS >> worker.batch_halvings)
        if self.layer is None:
            name = "log_probability_increase"
            scores, errors = log_probability_increase(loaded, prompts, rows)
        else:
            name = "causal"
            scores, errors = accuracy_changes(loaded, prompts, [self.layer], rows)
        queries = len({prompt.query for prompt in prompts})
        return [score_row(unit, Component(int(layer), "head", int(index)),
                          f"{name}_{LABEL_PLACES[label]}_label", scores[label, layer, index],
                          errors[label, layer, index], len(prompts), queries, task.name,
                          2 * self.prompts.each)
                for label, layer, index in np.argwhere(~np.isnan(scores))]


@dataclass(frozen=True)
class HeadReadingsJob(Job):
    """Attention to labels and what is read there, as they are and after they changed places."""

    kind: ClassVar[str] = "head_readings"
    stage: ClassVar[Stage] = "evaluate"
    table: ClassVar[str] = "component_scores"

    prompts: LabelledPromptsRef
    heads: Ablation

    def describe(self) -> str:
        return f"labels read by {len(self.heads)} heads"

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        from prunelib.heads.label_readings import compared, label_readings
        from prunelib.heads.labelled import LABELLED_ROWS

        loaded, task = worker.loaded(unit.model, self.dtype), self.prompts.relabelled
        prompts, turned = (self.prompts.encode(unit.model, reverse) for reverse in (False, True))
        before, after = (label_readings(loaded, some, self.heads.components,
                                        max(1, LABELLED_ROWS >> worker.batch_halvings))
                         for some in (prompts, turned))
        queries = [prompt.query for prompt in prompts]
        # Where nothing is paid, what is read is not known.
        return [score_row(unit, head, f"{name}_{place}_label", values[i, j], errors[i, j],
                          len(prompts), len(set(queries)), task.name, 2 * self.prompts.each)
                for name, (values, errors) in compared(before, after, queries).items()
                for i, head in enumerate(self.heads.components)
                for j, place in enumerate(LABEL_PLACES) if not np.isnan(values[i, j])]


@dataclass(frozen=True)
class LabelledJob(EngineJob):
    """Which of two labels a model under an ablation says: the more probable one."""

    kind: ClassVar[str] = "labelled"

    prompts: LabelledPromptsRef

    def describe(self) -> str:
        return f"labels of {self.prompts.task.name}, {self.intervention}"

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        from prunelib.heads.labelled import predicted

        task, prompts = self.prompts.relabelled, self.prompts.encode(unit.model)
        engine = worker.engine(unit, self.engine, self.dtype, self.intervention, self.canary)
        found = engine.logprobs([p.ids for p in prompts], [p.labels for p in prompts])
        said = [Completion((prompt.labels[label],), task.options[label])
                for prompt, label in zip(prompts, predicted(np.array(found)), strict=True)]
        return prediction_rows(unit.model.id, unit.id, task, engine.kind, self.prompts.format,
                               0, self.intervention.digest, "in_context", self.prompts.draw(),
                               [Prompt(p.ids, 1) for p in prompts], said, "options")


class InContextHeads(Study):
    """Find in-context heads, then remove them, read them and mitigate what they cause."""

    section: ClassVar[str] = "in_context_heads"
    settings: ClassVar[type[InContextHeadsSpec]] = InContextHeadsSpec

    def check(self, recipe: Recipe) -> None:
        spec = recipe.settings(InContextHeadsSpec)
        try:
            if spec.biases:
                orders(2 * spec.each, spec.orders)
            for name in spec.tasks:
                task = relabelled(recipe.task(name), spec.labels)
                splits: tuple[Split, ...] = ("attribute", "report")
                for split in splits if name == spec.task else splits[1:]:
                    draw_labelled(task, split=split, counts=(spec.each, spec.each), seed=0, count=2)
        except UserError as error:
            raise UserError(f"in_context_heads: {error}") from error

    def check_model(self, recipe: Recipe, info: ModelInfo) -> None:
        from prunelib.heads.labelled import encode_labelled

        spec, adapter = recipe.settings(InContextHeadsSpec), adapter_for(info.model_type)
        if "head" not in adapter.sites:
            raise UserError(f"in_context_heads: model '{info.id}' ({info.model_type}) has no "
                            "attention heads")
        if adapter.final_norm is None:
            raise UserError(f"in_context_heads: what one head of '{info.id}' ({info.model_type}) "
                            "says cannot be read, as its output is normalised before it is added: "
                            "leave the model out")
        have, sets = info.layers * info.heads, 4 if spec.random else 2
        if sets * spec.heads > have:
            what = ", and as many random ones, are" if spec.random else " are"
            raise UserError(
                f"in_context_heads: model '{info.id}' has {have} heads; {spec.heads} of each "
                f"label{what} {sets * spec.heads}: use heads: {have // sets} or fewer")
        for name in spec.tasks:
            try:
                encode_labelled(relabelled(recipe.task(name), spec.labels),
                                _some(recipe, spec, name, 2), checking_tokenizer(info))
            except (UserError, UnitError) as error:
                raise UserError(f"in_context_heads: model '{info.id}', task '{name}': {error}"
                                ) from error

    def steps(self, run: ModelRun) -> Step[None]:
        spec = run.recipe.settings(InContextHeadsSpec)
        prompts = _prompts(run, spec, spec.task, spec.seeds, "attribute")
        scored = [run.unit(HeadScoresJob(run.spec.dtype, prompts, layer),
                           cost=1.0 if layer is None else 1.0 + run.info.heads)
                  for layer in (None, *range(run.info.layers))]
        yield needs(scored)
        records = _records(run, spec, *_found(run, spec, scored))
        record_interventions(run, records, "heads")
        asked = canaries(run, distinct(records), canary_prompt(run, spec.task, "attribute", 1))
        # What needs no engine comes before one is started beside it.
        biased = [_prompts(run, spec, task, (seed,)) for task in spec.tasks for seed in spec.seeds]
        yield Batch(needed=tuple(asked), offered=(
            *_readings(run, spec, records), *label_biases(run, spec, biased, _chosen(records))))
        expected = canary_answers(run, asked)
        yield offers(
            run.unit(LabelledJob(
                run.spec.dtype, engine_of(run, record.intervention), record.intervention,
                _prompts(run, spec, task, (seed,)), canary=expected[record.intervention.digest]))
            for record in records for task in spec.tasks for seed in spec.seeds)

    def counts(self, recipe: Recipe, layers: int, heads: int) -> dict[Stage, Count]:
        spec = recipe.settings(InContextHeadsSpec)
        settings = len(spec.tasks) * len(spec.seeds)
        ablations = Count(1, 4 + spec.random)  # none where no head does anything for a label
        biases = Count(settings, settings * (1 + len(MITIGATIONS))) if spec.biases else Count()
        return {"attribute": exactly(1 + layers),
                # The study of neurons may have asked the untouched model.
                "canary": Count(int(not recipe.attribution), ablations.most),
                "evaluate": biases + Count(ablations.least * settings,
                                           1 + ablations.most * settings)}

    def tokens(self, recipe: Recipe, info: ModelInfo, lengths: Lengths) -> dict[Stage, float]:
        spec = recipe.settings(InContextHeadsSpec)
        counts, tokenizer = self.counts(recipe, info.layers, info.heads), load_tokenizer(info)
        mean = {name: sum(len(tokenizer(e.prompt)["input_ids"]) for e in some) / len(some)
                for name in spec.tasks if (some := _some(recipe, spec, name, 10))}
        prompts = spec.prompts * len(spec.seeds)
        reported = spec.prompts * sum(mean.values()) / len(mean)
        # Balanced, one fewer of either label, and every order; as often as there are mitigations.
        biases = (3 + spec.orders) * (1 + len(MITIGATIONS)) if spec.biases else 0
        settings = len(spec.tasks) * len(spec.seeds)
        return {
            # All heads at once, and each head removed alone: above it, half the layers on average.
            "attribute": prompts * mean[spec.task] * (2 + info.layers * info.heads / 2),
            "canary": counts["canary"].most * mean[spec.task],
            "evaluate": reported * (settings * (biases + counts["canary"].most)
                                    + 2 * len(spec.seeds)),
        }

    def summary(self, connection: duckdb.DuckDBPyConnection, run: str) -> Summary | None:
        rows = connection.sql(_LABELS, params=[run]).to_arrow_table().to_pylist()
        if not rows:
            return None
        return Summary("% right with two new labels, without in-context heads",
                       _label_tables(rows), "select * from in_context")


STUDY = InContextHeads()


def _some(recipe: Recipe, spec: InContextHeadsSpec, name: str, count: int) -> list[Any]:
    """Some reported prompts of a task."""
    return draw_labelled(relabelled(recipe.task(name), spec.labels), split="report",
                         counts=(spec.each, spec.each), seed=0, count=count,
                         prompt_format=spec.format)


def _prompts(run: ModelRun, spec: InContextHeadsSpec, task: str, seeds: tuple[int, ...],
             split: Split = "report") -> LabelledPromptsRef:
    written = "own" if run.recipe.task(task).format else spec.format
    return usable_labelled(run, LabelledPromptsRef(run.task(task), spec.labels, split, spec.each,
                                                seeds, spec.prompts, written))


def _found(run: ModelRun, spec: InContextHeadsSpec, scored: list[Unit]
           ) -> tuple[tuple[Component, ...], tuple[Component, ...]]:
    """The heads of the first label and those of the second."""
    from prunelib.heads.in_context import in_context_heads

    table = run.store.read("component_scores", [unit.id for unit in scored])
    scores: dict[str, NDArray[np.float64]] = {
        f"{score}_{place}_label": np.full((run.info.layers, run.info.heads), np.nan)
        for score in ("causal", "log_probability_increase") for place in LABEL_PLACES}
    columns = table.select(["score", "layer", "index", "value"]).to_pydict()
    for score, layer, index, value in zip(*columns.values(), strict=True):
        scores[score][layer, index] = value
    causal, increase = (np.stack([scores[f"{score}_{place}_label"] for place in LABEL_PLACES])
                        for score in ("causal", "log_probability_increase"))
    found = in_context_heads(causal, increase, spec.top, spec.heads)
    for label, heads in zip(spec.labels, found, strict=True):
        if not heads:
            logger.warning("%s: no head does anything for label '%s' of task '%s'", run.info.id,
                           label, spec.task)
    return found


def _records(run: ModelRun, spec: InContextHeadsSpec, *found: tuple[Component, ...]
             ) -> list[AblationRecord]:
    """The untouched model, without the heads of both labels, of each, without random others."""
    both = [head for heads in found for head in heads]
    records = [AblationRecord(BASELINE, "none", "baseline")]
    removed: tuple[tuple[Role, Sequence[Component]], ...] = (
        ("in_context", both), ("in_context_first", found[0]), ("in_context_second", found[1]))
    records += [AblationRecord(Ablation.of(heads), "in_context_heads", role, "head")
                for role, heads in removed if heads]
    others = [head for layer in range(run.info.layers) for index in range(run.info.heads)
              if (head := Component(layer, "head", index)) not in both]
    for seed in range(spec.random if both else 0):
        rng = random.Random(seed_of("in_context_random", len(both), seed))  # noqa: S311
        records.append(AblationRecord(Ablation.of(rng.sample(others, len(both))), "random",
                                      "in_context_random", "head", seed=seed))
    return records


def _chosen(records: Sequence[AblationRecord]) -> Ablation:
    """The heads of both labels."""
    return next((r.intervention for r in records if r.role == "in_context"), BASELINE)


def _readings(run: ModelRun, spec: InContextHeadsSpec, records: Sequence[AblationRecord]
              ) -> list[Unit]:
    heads = _chosen(records)
    return [run.unit(HeadReadingsJob(run.spec.dtype, _prompts(run, spec, spec.task, spec.seeds),
                                     heads), priority=1)] if len(heads) else []


def _label_tables(rows: Sequence[dict[str, Any]]) -> tuple[SummaryTable, ...]:
    """Accuracy on each task with the heads of both labels, of one, and random ones off."""
    cells: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for row in rows:
        cells.setdefault(row["model"], {}).setdefault(row["task"], {})[row["removed"]] = row
    sets = ("none", "both", "first", "second", "random")
    return tuple(SummaryTable(model, ("task", *sets, "both vs random"), tuple(
        (task, *(f"{100 * found[name]['accuracy']:.1f}" if name in found else "" for name in sets),
         points(found["both"]) if "both" in found else "")
        for task, found in tasks.items())) for model, tasks in cells.items())
