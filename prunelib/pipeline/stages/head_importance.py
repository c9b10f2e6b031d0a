"""The study of heads and FFNs: how much each matters, and what is left when some are removed.

The study of formulas.md §3 over the same units as everything else: a component alone, or a share of
them, is an ablation, and what a model answers under it is a prediction. Importance is measured on
the splits that are not reported, for every evaluated task and number of shots.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from prunelib.components import Component, Site
from prunelib.errors import UserError
from prunelib.heads.ranking import removed_count
from prunelib.heads.removal import Removal, Scores, Setting, removals
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.models import ModelInfo, adapter_for
from prunelib.models.loading import load_tokenizer
from prunelib.pipeline.stages.canary import canary_prompt, checked
from prunelib.pipeline.stages.evaluation import evaluate_job
from prunelib.pipeline.stages.intervention_records import (
    AblationRecord,
    distinct,
    record_interventions,
)
from prunelib.pipeline.stages.study import (
    Count,
    Lengths,
    Study,
    Summary,
    SummaryTable,
    exactly,
)
from prunelib.pipeline.units.left_out import usable
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import PromptsRef
from prunelib.pipeline.units.rows import score_row
from prunelib.pipeline.units.steps import Batch, Step, offers
from prunelib.pipeline.units.unit import Job, Row, Unit, Workplace
from prunelib.recipe.heads import ORDERS, ImportanceSpec, RemovalSpec
from prunelib.recipe.recipe import Recipe
from prunelib.tasks import Split
from prunelib.vocabulary import Stage

if TYPE_CHECKING:
    import duckdb

Array = NDArray[np.float64]

_REMOVED = """
SELECT model, shots, heads, ffns, "order", accuracy FROM removal_means
WHERE run = $1 AND (heads = 0 OR ffns = 0) ORDER BY ALL
"""


@dataclass(frozen=True)
class ImportanceJob(Job):
    """Gradient importance of every head and FFN, all variants, on some prompts."""

    kind: ClassVar[str] = "importance"
    stage: ClassVar[Stage] = "attribute"
    table: ClassVar[str] = "component_scores"

    prompts: PromptsRef

    def describe(self) -> str:
        return f"importance, {self.prompts.task.name}, {self.prompts.shots} shots"

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        from prunelib.heads.importance import IMPORTANCE_ROWS, gradient_importance

        loaded = worker.loaded(unit.model, self.dtype)
        prompts = self.prompts.encode(loaded.tokenizer)
        found = gradient_importance(loaded, prompts,
                                    max(1, IMPORTANCE_ROWS >> worker.batch_halvings))
        queries = self.prompts.queries
        return [row for site, variants in found.items() for variant, values in variants.items()
                for row in _score_rows(unit, site, f"gradient_{variant}", values.scores,
                                       values.errors(queries), len(prompts), len(set(queries)),
                                       self.prompts.task.name, self.prompts.shots)]


@dataclass(frozen=True)
class InductionJob(Job):
    """Prefix-matching and copying scores of every head, on random sequences."""

    kind: ClassVar[str] = "induction"
    stage: ClassVar[Stage] = "attribute"
    table: ClassVar[str] = "component_scores"

    sequences: int
    seed: int

    def describe(self) -> str:
        return f"induction scores, {self.sequences} sequences"

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        from prunelib.attribution.sampling import mean_error
        from prunelib.heads.induction import copying, prefix_matching
        from prunelib.heads.sequences import draw_sequences

        loaded = worker.loaded(unit.model, self.dtype)
        repeated, once = (draw_sequences(loaded, self.sequences, repeats, self.seed)
                          for repeats in (4, 1))
        found = {"prefix_matching": prefix_matching(loaded, repeated),
                 "copying": copying(loaded, once),
                 "copying_own_value": copying(loaded, once, "own_value")}
        sequences = [str(i) for i in range(self.sequences)]  # each is drawn on its own
        return [row for name, values in found.items()
                for row in _score_rows(unit, "head", name, values.mean(0),
                                       mean_error(values, sequences), self.sequences,
                                       self.sequences)]


def _score_rows(unit: Unit, site: Site, name: str, values: Array, errors: Array, prompts: int,
                queries: int, task: str | None = None, shots: int | None = None) -> list[Row]:
    """Rows of ``component_scores``; values and errors are ``[layers, components]``."""
    return [score_row(unit, Component(layer, site, index), name, float(values[layer, index]),
                      float(errors[layer, index]), prompts, queries, task, shots)
            for layer, index in np.ndindex(*values.shape)]


class HeadImportance(Study):
    """Heads and FFNs: gradient and oracle importance, induction scores, removal."""

    section: ClassVar[str] = "importance"
    settings: ClassVar[type[ImportanceSpec]] = ImportanceSpec

    def check(self, recipe: Recipe) -> None:
        spec = _settings(recipe)
        if not recipe.evaluate.tasks:
            raise UserError("importance: evaluate.tasks has none but those of "
                            "lm-evaluation-harness, which have no splits to rank components on")
        needed: dict[Split, int] = {"attribute": spec.prompts, "search": spec.examples}
        for name in recipe.evaluate.tasks:
            for split, examples in needed.items():
                task = recipe.task(name)
                task.check(split, max(recipe.evaluate.shots), examples)
                if not task.labelled(split):
                    raise UserError(f"importance: task '{name}' has no labels in its {split} "
                                    "split, by which to see what a component is for")

    def check_model(self, recipe: Recipe, info: ModelInfo) -> None:
        if "head" not in adapter_for(info.model_type).sites:
            raise UserError(f"importance: model '{info.id}' ({info.model_type}) has no attention "
                            "heads")

    def steps(self, run: ModelRun) -> Step[None]:
        spec = _settings(run.recipe)
        names: dict[Site, str] = {} if spec.removal is None else {
            "head": spec.removal.heads, "ffn": spec.removal.ffns}
        gradients = {s: run.unit(ImportanceJob(run.spec.dtype, usable(run, run.prompts(
            s[0], "attribute", s[1], spec.seed, range(spec.prompts)))))
            for s in _settings_of(run.recipe)}
        beside = (run.unit(InductionJob(run.spec.dtype, spec.sequences, spec.seed), priority=1),
                  ) if spec.sequences else ()
        read = any(name.startswith("gradient") for name in names.values())
        units = tuple(gradients.values())
        yield Batch(needed=units, offered=beside) if read else offers((*units, *beside))
        oracle = yield from _oracle(run, spec, "oracle" in names.values())
        if spec.removal is None:
            return
        yield from _removal(run, spec.removal, {
            site: {} if name == "none" else oracle[site] if name == "oracle" else
            _read_scores(run, gradients, site, name)
            for site, name in names.items()})

    def counts(self, recipe: Recipe, layers: int, heads: int) -> dict[Stage, Count]:
        spec, evaluate = _settings(recipe), recipe.evaluate
        settings = len(_settings_of(recipe))
        alone = _alone(spec, layers, heads)
        oracle = exactly((1 + alone) * settings if alone else 0)
        ablations, removal = Count(), Count()
        if spec.removal is not None:
            ablations, removal = _removal_count(recipe, spec.removal, layers, heads)
        # The untouched model's answers, unless the study of neurons asks for them anyway.
        untouched = settings if spec.removal is not None and not recipe.attribution else 0
        seeds = len(evaluate.seeds)
        return {
            "attribute": exactly(settings + bool(spec.sequences)),
            # A component that is removed first may have been alone before, and the untouched model
            # may have been asked by the study of neurons.
            "canary": Count((not recipe.attribution) + max(alone, ablations.least),
                            1 + alone + ablations.most)
            if alone or spec.removal is not None else Count(),
            "evaluate": oracle + Count((removal.least + untouched) * seeds,
                                       (removal.most + untouched) * seeds),
        }

    def tokens(self, recipe: Recipe, info: ModelInfo, lengths: Lengths) -> dict[Stage, float]:
        spec, evaluate = _settings(recipe), recipe.evaluate
        counts = self.counts(recipe, info.layers, info.heads)
        settings = _settings_of(recipe)
        alone = _alone(spec, info.layers, info.heads)
        oracle = (1 + alone) * len(settings) if alone else 0

        def mean(split: Split) -> float:
            return sum(lengths(task, split, shots) for task, shots in settings) / len(settings)

        reported = sum(recipe.examples(task) * lengths(task, "report", shots)
                       for task, shots in settings) / len(settings)
        return {
            # Forward and backward, which costs as much when no weight gradients are computed.
            "attribute": 2 * spec.prompts * len(settings) * mean("attribute")
            + _sequence_tokens(spec, info),
            "canary": counts["canary"].most
            * lengths(evaluate.tasks[0], "search", max(evaluate.shots)),
            "evaluate": oracle * spec.examples * mean("search")
            + (counts["evaluate"].most - oracle) * reported,
        }

    def summary(self, connection: duckdb.DuckDBPyConnection, run: str) -> Summary | None:
        rows = connection.sql(_REMOVED, params=[run]).to_arrow_table().to_pylist()
        if not rows:
            return None
        return Summary("% right without the least important heads or FFNs, mean over tasks",
                       _removal_tables(rows), "select * from removal_means")


STUDY = HeadImportance()


def _settings(recipe: Recipe) -> ImportanceSpec:
    return recipe.settings(ImportanceSpec)


def _settings_of(recipe: Recipe) -> list[Setting]:
    """Every evaluated task at every number of shots."""
    return [(task, shots) for task in recipe.evaluate.tasks for shots in recipe.evaluate.shots]


def _alone(spec: ImportanceSpec, layers: int, heads: int) -> int:
    """Components that are removed one at a time."""
    return sum(layers * (heads if site == "head" else 1) for site in spec.oracle)


def _oracle(run: ModelRun, spec: ImportanceSpec, read: bool) -> Step[dict[Site, Scores]]:
    """Accuracy lost without each component alone (Eq. 7, §3.1), on the search split.

    Unless the scores are ``read`` by what follows, nothing waits for them.
    """
    settings = _settings_of(run.recipe)
    alone = {Component(layer, site, index): Ablation.of_layer(layer, [index], site)
             for site in spec.oracle
             for layer in range(run.info.layers)
             for index in range(run.info.components(site))}
    records = [AblationRecord(BASELINE, "none", "baseline"),
               *(AblationRecord(ablation, "oracle", "component", part.site, part.layer)
                 for part, ablation in alone.items())]
    record_interventions(run, records, "oracle")
    if not alone:
        return {}
    expected = yield from checked(run, distinct(records), _canary_prompt(run))
    units = {
        (record.intervention, s): run.unit(evaluate_job(
            run, s[0], s[1], spec.seed, spec.examples, record.intervention,
            expected[record.intervention.digest], split="search", purpose="importance"))
        for record in records for s in settings}
    asked = tuple(units.values())
    yield Batch(needed=asked) if read else offers(asked)
    if not read:
        return {}
    found = _accuracies(run, asked)
    lost: dict[Site, Scores] = {site: {
        s: np.zeros((run.info.layers, run.info.components(site))) for s in settings}
        for site in spec.oracle}
    for part, ablation in alone.items():
        for s in settings:
            lost[part.site][s][part.layer, part.index] = (
                found[units[BASELINE, s].id] - found[units[ablation, s].id])
    return lost


def _canary_prompt(run: ModelRun) -> PromptsRef:
    evaluate = run.recipe.evaluate
    return canary_prompt(run, evaluate.tasks[0], "search", max(evaluate.shots))


def _accuracies(run: ModelRun, units: Iterable[Unit]) -> dict[str, float]:
    """Unit → share of right answers; a missing answer is wrong."""
    table = run.store.read("predictions", [unit.id for unit in units])
    means = table.group_by("unit_id").aggregate([("correct", "mean")])
    return dict(zip(means["unit_id"].to_pylist(), means["correct_mean"].to_pylist(), strict=True))


def _read_scores(run: ModelRun, units: dict[Setting, Unit], site: Site, name: str) -> Scores:
    """Scores of one name, ``[layers, components]`` for each setting."""
    table = run.store.read("component_scores", [unit.id for unit in units.values()])
    settings = {unit.id: setting for setting, unit in units.items()}
    found = {s: np.full((run.info.layers, run.info.components(site)), np.nan) for s in units}
    columns = table.select(["unit_id", "site", "score", "layer", "index", "value"]).to_pydict()
    for unit, of_site, score, layer, index, value in zip(*columns.values(), strict=True):
        if (of_site, score) == (site, name):
            found[settings[unit]][layer, index] = value
    return found


def _removal(run: ModelRun, spec: RemovalSpec, scores: dict[Site, Scores]) -> Step[None]:
    """Remove growing shares of heads, of FFNs or of both, and evaluate what is left."""
    settings, found = _settings_of(run.recipe), list(removals(spec, scores))
    # By ablation: several orders may begin with the same one, and an engine switches to it once.
    wanted = {BASELINE: dict.fromkeys(settings)}
    for removal in found:
        wanted.setdefault(removal.ablation, {}).update(dict.fromkeys(
            s for s in settings
            if removal.task in (None, s[0]) and removal.shots in (None, s[1])))
    records = [AblationRecord(BASELINE, "none", "baseline"), *(
        AblationRecord(ablation, "removal", "removal",
                       ablation.sites[0] if len(ablation.sites) == 1 else None)
        for ablation in wanted if len(ablation))]
    record_interventions(run, records, "removal")
    run.record("removals", [_row(run, removal) for removal in found], "removal")
    expected = yield from checked(run, distinct(records), _canary_prompt(run))
    evaluate = run.recipe.evaluate
    yield offers(run.unit(evaluate_job(run, task, shots, seed, run.recipe.examples(task), ablation,
                                       expected[ablation.digest]))
                 for ablation, of in wanted.items() for task, shots in of
                 for seed in evaluate.seeds)


def _row(run: ModelRun, removal: Removal) -> Row:
    return {
        "model": run.info.id, "intervention": removal.ablation.digest, "order": removal.order,
        "task": removal.task, "shots": removal.shots, "ranked_by": removal.ranked_by,
        "seed": removal.seed, "heads": removal.heads, "ffns": removal.ffns,
        "heads_removed": len(removal.removed_heads), "ffns_removed": len(removal.removed_ffns),
    }  # fmt: skip


def _removal_count(recipe: Recipe, spec: RemovalSpec, layers: int, heads: int
                   ) -> tuple[Count, Count]:
    """Different ablations, and (ablation, task, shots) that are evaluated, without seeds.

    At most, as two orders may begin with the same components; at least, as if all did.
    """
    tasks, shots = len(recipe.evaluate.tasks), len(recipe.evaluate.shots)
    steps = [len({removed_count(share, width) for share in spec.fractions} - {0})
             for ranking, width in ((spec.heads, layers * heads), (spec.ffns, layers))
             if ranking != "none"]
    # The closest of other tasks is the farthest where there is one other task.
    relative = min(sum(name in spec.orders for name in ("closest", "farthest")), tasks - 1)
    own = "own" in spec.orders
    by_task = tasks * shots * (own or relative > 0)  # the relatives' orders are own ones of others
    aggregate = shots * ("aggregate" in spec.orders)
    random = spec.random * ("random" in spec.orders)
    ablations = sum(steps) * (by_task + aggregate + random)
    evaluations = sum(steps) * tasks * (shots * (own + relative) + aggregate + random * shots)
    least = sum(steps) if own or aggregate or random else 0
    if spec.joint and own and len(steps) == 2:
        at_once = steps[0] * steps[1]
        ablations += at_once * tasks * shots
        evaluations += at_once * tasks * shots
        least += at_once
    return Count(least, ablations), Count(least * tasks * shots, evaluations)


def _sequence_tokens(spec: ImportanceSpec, info: ModelInfo) -> float:
    """Tokens of the random sequences (formulas.md §3.3), and what they cost head by head.

    Copying is scored twice, each time with every head's output through the unembedding.
    """
    vocabulary = len(load_tokenizer(info))
    once = sum(min(4 * (2 * number + 25), vocabulary) for number in range(spec.sequences))
    repeated = sum(4 * min(2 * number + 25, vocabulary) for number in range(spec.sequences))
    unembedding = 2 * info.layers * info.heads * info.stream * vocabulary / info.bytes
    return repeated + 2 * once * (1 + unembedding)


def _removal_tables(rows: Sequence[dict[str, Any]]) -> tuple[SummaryTable, ...]:
    """Accuracy by the share that is removed, a column for every order."""
    orders = [order for order in ORDERS if any(row["order"] == order for row in rows)]
    cells: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        kind = "heads" if row["heads"] else "FFNs"
        name = f"{100 * max(row['heads'], row['ffns']):g}% of {kind}" if max(
            row["heads"], row["ffns"]) else "nothing"
        lines = cells.setdefault(f"{row['model']}, {row['shots']} shots", {})
        lines.setdefault(name, {})[row["order"]] = row["accuracy"]
    return tuple(SummaryTable(title, ("removed", *orders), tuple(
        (name, *(f"{100 * found[order]:.1f}" if order in found else "" for order in orders))
        for name, found in lines.items())) for title, lines in cells.items())
