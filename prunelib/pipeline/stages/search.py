"""The search stage: the grid of (layer, rate) for every ranking, and the choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from prunelib.engines.base import Completion
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.interventions.base import Intervention
from prunelib.models.loading import load_tokenizer
from prunelib.pipeline.stages.intervention_records import AblationRecord, record_interventions
from prunelib.pipeline.stages.rankings import Ranking, random_components
from prunelib.pipeline.stages.study import Count, exactly
from prunelib.pipeline.units.left_out import usable
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import PromptsRef, tokenized
from prunelib.pipeline.units.rows import choice_rows, prediction_rows
from prunelib.pipeline.units.steps import Step, needs, together
from prunelib.pipeline.units.unit import Job, Row, Unit, Workplace
from prunelib.search.choice import Cell, Outcome, Rule, choose
from prunelib.search.selection import cut
from prunelib.search.strategies import Found, Grid, Request, load_strategy
from prunelib.tasks import ChoiceScoring, own_scoring
from prunelib.vocabulary import Purpose, Role, Scoring, Stage


@dataclass(frozen=True)
class GridJob(Job):
    """Several ablations of one layer on the same examples, in one batch."""

    kind: ClassVar[str] = "grid"
    stage: ClassVar[Stage] = "search"
    table: ClassVar[str] = "predictions"
    purpose: ClassVar[Purpose] = "search"

    prompts: PromptsRef
    #: ``options``: the answer is one of the task's options.
    scoring: Scoring
    layer: int
    ablations: tuple[Ablation, ...]

    def describe(self) -> str:
        return f"layer {self.layer}, {len(self.ablations)} ablations"

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        scoring = own_scoring(self.scoring)
        return (self._written(worker, unit) if scoring is None else own_choices(
            worker, unit, self.prompts, scoring, self.ablations, self.purpose))

    def _written(self, worker: Workplace, unit: Unit) -> list[Row]:
        """What the model writes under all ablations, or which of the task's options."""
        from prunelib.engines.limits import stop_token_ids
        from prunelib.search.grid import GRID_ROWS, greedy_rows
        from prunelib.tasks.tokenization import answer_tokens, encode

        loaded = worker.loaded(unit.model, self.dtype)
        task, examples = self.prompts.draw()
        prompts = tokenized(task, examples, loaded.tokenizer)
        answers = greedy_rows(loaded, self.layer, self.ablations,
                              [encode(example, loaded.tokenizer) for example in examples],
                              max(p.max_tokens for p in prompts),
                              stop_token_ids(loaded.tokenizer, loaded.info.ends),
                              GRID_ROWS >> worker.batch_halvings,
                              None if self.scoring == "greedy" else [
                                  answer_tokens(example, task.options, loaded.tokenizer)[1]
                                  for example in examples])
        rows: list[Row] = []
        for ablation, tokens, margins in zip(self.ablations, answers.tokens, answers.margins,
                                             strict=True):
            completions = [
                Completion(tuple(ids), str(loaded.tokenizer.decode(ids, skip_special_tokens=True)))
                for ids in tokens
            ]
            found = prediction_rows(unit.model.id, unit.id, task, "transformers",
                                    self.prompts.format, 0, ablation.digest, self.purpose,
                                    examples, prompts, completions, self.scoring)
            rows += [row | {"margin": float(margin)}
                     for row, margin in zip(found, margins, strict=True)]
        return rows


def own_choices(worker: Workplace, unit: Unit, asked: PromptsRef, scoring: ChoiceScoring,
                interventions: Sequence[Intervention], purpose: Purpose) -> list[Row]:
    """Every question's own choices under each intervention, one after the other."""
    from prunelib.engines.multiple_choice import choose_own
    from prunelib.engines.transformers import TransformersEngine

    task, examples = asked.draw()
    engine = TransformersEngine(worker.loaded(unit.model, unit.job.dtype))
    engine.batch_tokens >>= worker.batch_halvings
    tokenizer = load_tokenizer(unit.model)
    prompts = tokenized(task, examples, tokenizer)
    rows: list[Row] = []
    with closing(engine):
        for intervention in interventions:
            engine.switch(intervention)
            chosen = choose_own(engine, scoring, examples, tokenizer)
            found = prediction_rows(
                unit.model.id, unit.id, task, engine.kind, asked.format, 0, intervention.digest,
                purpose, examples, prompts, [c.completion for c in chosen], scoring)
            rows += [row | {"margin": choice.margin} for row, choice in zip(
                choice_rows(found, task, examples, chosen), chosen, strict=True)]
    return rows


def search(run: ModelRun, rankings: list[Ranking], priority: int) -> Step[list[AblationRecord]]:
    """Search the grid for every ranking side by side, choose, and record what was tried."""
    found = yield from together([_strategy(run, ranking, priority) for ranking in rankings])
    records = [AblationRecord(BASELINE, "none", "baseline", main=True)]
    tried: list[AblationRecord] = []
    for ranking, (cells, choice) in zip(rankings, found, strict=True):
        about: dict[str, Any] = {"seed": ranking.seed,
                                 "proxy": run.recipe.search_task(ranking.request.task),
                                 "only": ranking.request.only,
                                 "samples": 0 if ranking.random else len(ranking.sample.indices)}
        tried += [_record(cell, ranking, "grid", **about) for cell in cells]
        records.append(_record(choice, ranking, "control" if ranking.random else "chosen",
                               main=ranking.request.main and not ranking.random, **about))
        if choice is not None and not ranking.random:
            records += _same_cell(run, ranking, choice)
    records = list(dict.fromkeys(records))  # who chose the same cell shares its controls
    record_interventions(run, records, "choice")
    record_interventions(run, tried, "grid")
    return records


def searched(run: ModelRun, task: str, sample: PromptsRef) -> PromptsRef:
    """The examples on which a search decides for what was found on a ``sample`` of a task."""
    spec, asked = run.recipe.search, sample
    if spec.split != "attribute":
        asked = run.prompts(run.recipe.search_task(task), "search", spec.shots, spec.seed,
                            range(spec.examples), spec.demonstrations)
    return usable(run, asked, run.format_and_scoring(asked.task.name)[1])


def _record(cell: Cell | None, ranking: Ranking, role: Role, **about: Any) -> AblationRecord:
    """A cell of a ranking's grid; ``None`` is nothing switched off."""
    if cell is None:
        return AblationRecord(BASELINE, ranking.method, role, **about)
    return AblationRecord(cast("Ablation", cell.ablation), ranking.method, role, ranking.site,
                          cell.layer, cell.rate, **about)


def _strategy(run: ModelRun, ranking: Ranking, priority: int
              ) -> Step[tuple[tuple[Cell, ...], Cell | None]]:
    """Do what the recipe's strategy asks for, request by request: what was tried, and the choice.

    The first units are joined by the untouched model on all examples, which is a candidate.
    """
    spec = run.recipe.search
    prompts = searched(run, ranking.request.task, ranking.sample)
    width = run.info.components(ranking.site)
    grid = Grid(
        {(layer, rate): cut(layer, ranking.orders[layer], rate, width, ranking.site)
         for layer in run.layers for rate in spec.rates},
        len(prompts.indices), ranking.mass, rule_of(run))

    def unit_of(request: Request) -> Unit:
        some = replace(prompts, indices=prompts.indices[request.start : request.stop])
        return _grid_unit(run, some, request.layer,
                          cast("tuple[Ablation, ...]", request.ablations), priority)

    return (yield from decided(run, prompts, grid, unit_of, priority))


def request_count(strategy: str, layers: int, examples: int) -> Count:
    """Requests that a strategy of :mod:`prunelib.search.strategies` makes for one ranking."""
    if strategy == "attribution_mass":
        return Count(1, layers)
    if strategy == "coarse_to_fine":  # the leader's layer, some of it tried before
        return Count(layers, layers + 2)
    if strategy == "successive_halving":
        rounds, stop = 0, -(-examples // 16)
        while stop < examples:
            rounds, stop = rounds + 1, min(2 * stop, examples)
        return Count(layers + rounds, layers * (1 + rounds))
    return exactly(layers)


def rule_of(run: ModelRun) -> Rule:
    """How the recipe chooses."""
    spec = run.recipe.search
    return Rule(spec.choice, spec.statistic, spec.nothing)


def decided(run: ModelRun, prompts: PromptsRef, grid: Grid, unit_of: Callable[[Request], Unit],
            priority: int = 0) -> Step[tuple[tuple[Cell, ...], Cell | None]]:
    """Do what the recipe's strategy asks for on these prompts: what was tried, and the choice.

    The units of the first requests are joined by that of the untouched model.
    """
    baseline = _grid_unit(run, prompts, run.info.layers - 1, (BASELINE,), priority)
    asking = load_strategy(run.recipe.search.strategy)(grid)
    requests = next(asking)
    first = [baseline]
    while True:
        units = [unit_of(request) for request in requests]
        yield needs(units + first)
        first = []
        try:
            requests = asking.send(_outcomes(run, units, [r.ablations for r in requests]))
        except StopIteration as end:
            found = cast("Found", end.value)
            (known,) = _outcomes(run, [baseline], [(BASELINE,)])
            return found.cells, choose(
                found.candidates, grid.rule,
                Outcome(known.correct[0], known.copied[0], known.margin[0]), _proxies(prompts))


def _proxies(prompts: PromptsRef) -> NDArray[np.intp]:
    """Which of several proxies each example is of, ``[examples]``: a mixture takes them in turn."""
    return np.sort(np.array(prompts.indices, np.intp)) % max(1, len(prompts.task.load().parts))


def _grid_unit(run: ModelRun, prompts: PromptsRef, layer: int, ablations: tuple[Ablation, ...],
               priority: int) -> Unit:
    job = GridJob(run.spec.dtype, prompts, run.format_and_scoring(prompts.task.name)[1], layer,
                  ablations)
    cost = len(ablations) * (2 * run.info.layers - layer) * len(prompts.indices)
    return run.unit(job, cost, priority)


def _outcomes(run: ModelRun, units: Sequence[Unit], tried: Sequence[Sequence[Intervention]]
              ) -> list[Outcome]:
    """What came of each unit: of what it tried, in that order, examples ascending."""
    table = run.store.read("predictions", [unit.id for unit in units]).sort_by("example")
    columns = table.select(["unit_id", "intervention", "correct", "copied", "margin"]).to_pydict()
    found: dict[tuple[str, str], list[tuple[bool, bool, float]]] = {}
    for unit, ablation, *values in zip(*columns.values(), strict=True):
        found.setdefault((unit, ablation), []).append(tuple(values))
    outcomes = []
    for unit, interventions in zip(units, tried, strict=True):
        correct, copied, margin = np.moveaxis(
            np.array([found[unit.id, i.digest] for i in interventions], dtype=float), 2, 0)
        outcomes.append(Outcome(correct.astype(bool), copied.astype(bool), margin))
    return outcomes


def _same_cell(run: ModelRun, ranking: Ranking, cell: Cell) -> list[AblationRecord]:
    """Random components of the chosen layer, as many as were chosen.

    Views find the controls of a choice by its site, layer, rate and task.
    """
    width = run.info.components(ranking.site)
    return [
        AblationRecord(
            cut(cell.layer, random_components(run, ranking.site, cell.layer, seed), cell.rate,
                width, ranking.site),
            "random", "control", ranking.site, cell.layer, cell.rate, seed,
            run.recipe.search_task(ranking.request.task), ranking.request.only,
            main=ranking.request.main and seed == 0)
        for seed in range(run.recipe.controls.random)
    ]
