"""The second stage: search the grid of (layer, rate) for every ranking, and choose."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from prunelib.components import Site
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.pipeline.stages.attribution import Ranking, random_components
from prunelib.pipeline.units.model_run import ModelRun, Step, together
from prunelib.pipeline.units.unit import GridJob, Prompts, Unit
from prunelib.search.choice import Cell
from prunelib.search.selection import cut
from prunelib.search.strategies import STRATEGIES, Found, Grid, Outcome


@dataclass(frozen=True)
class Entry:
    """An ablation with where it came from: a row of the table ``ablations``.

    Attributes:
        proxy: task on whose examples the search decided.
        only: the one task whose answers it is reported on, or ``None`` for all.
        main: whether it is part of the main comparison, which a deadline puts first.
    """

    ablation: Ablation
    method: str
    role: str
    site: Site | None = None
    layer: int | None = None
    rate: float | None = None
    seed: int | None = None
    proxy: str | None = None
    only: str | None = None
    main: bool = field(default=False, compare=False)


def search(run: ModelRun, rankings: list[Ranking], priority: int) -> Step[list[Entry]]:
    """Search the grid for every ranking side by side, choose, and record what was tried."""
    found = yield from together([_strategy(run, ranking, priority) for ranking in rankings])
    entries, tried = [Entry(BASELINE, "none", "baseline", main=True)], []
    for ranking, outcome in zip(rankings, found, strict=True):
        about: dict[str, Any] = {"site": ranking.site, "seed": ranking.seed,
                                 "proxy": run.recipe.search_task(ranking.arm),
                                 "only": ranking.arm.only}
        tried += [Entry(cell.ablation, ranking.method, "grid", layer=cell.layer, rate=cell.rate,
                        **about) for cell in outcome.cells]
        cell, role = outcome.choice, "control" if ranking.random else "chosen"
        entries.append(Entry(cell.ablation, ranking.method, role, layer=cell.layer,
                             rate=cell.rate, main=ranking.arm.main and not ranking.random,
                             **about))
        if not ranking.random:
            entries += _same_cell(run, ranking, cell)
    entries = list(dict.fromkeys(entries))  # who chose the same cell shares its controls
    record_ablations(run, entries, "choice")
    record_ablations(run, tried, "grid")
    return entries


def _strategy(run: ModelRun, ranking: Ranking, priority: int) -> Step[Found]:
    """Do what the recipe's strategy asks for, request by request.

    The first units are joined by the model as it is on all examples, for the view ``grid``.
    """
    spec = run.recipe.search
    prompts = run.searched(ranking.arm, ranking.sample)
    width = run.info.components(ranking.site)
    asking = STRATEGIES[spec.strategy](Grid(
        {(layer, rate): cut(layer, ranking.orders[layer], rate, width, ranking.site)
         for layer in run.layers for rate in spec.rates},
        len(prompts.indices), ranking.mass, spec.statistic))
    requests = next(asking)
    untouched = [_grid_unit(run, prompts, run.info.layers - 1, (BASELINE,), priority)]
    while True:
        units = [
            _grid_unit(run, replace(prompts, indices=prompts.indices[r.start : r.stop]), r.layer,
                       r.ablations, priority)
            for r in requests
        ]
        yield untouched + units
        untouched = []
        try:
            requests = asking.send(_outcomes(run, units))
        except StopIteration as end:
            return cast("Found", end.value)


def _grid_unit(run: ModelRun, prompts: Prompts, layer: int, ablations: tuple[Ablation, ...],
               priority: int) -> Unit:
    job = GridJob(prompts, run.written(prompts.task.name)[1], layer, ablations, run.spec.dtype)
    cost = len(ablations) * (2 * run.info.layers - layer) * len(prompts.indices)
    return run.unit(job, cost, priority)


def _outcomes(run: ModelRun, units: list[Unit]) -> list[Outcome]:
    """What came of each unit, its ablations in their order, examples ascending."""
    table = run.store.read("predictions", [unit.id for unit in units]).sort_by("example")
    columns = table.select(["unit_id", "ablation", "correct", "copied", "margin"]).to_pydict()
    found: dict[tuple[str, str], list[tuple[bool, bool, float]]] = {}
    for unit, ablation, *values in zip(*columns.values(), strict=True):
        found.setdefault((unit, ablation), []).append(tuple(values))
    outcomes = []
    for unit in units:
        ablations = cast("GridJob", unit.job).ablations
        correct, copied, margin = np.moveaxis(
            np.array([found[unit.id, a.digest] for a in ablations], dtype=float), 2, 0)
        outcomes.append(Outcome(correct.astype(bool), copied.astype(bool), margin))
    return outcomes


def _same_cell(run: ModelRun, ranking: Ranking, cell: Cell) -> list[Entry]:
    """Random components of the chosen layer, as many as were chosen.

    Views find the controls of a choice by its site, layer, rate and task.
    """
    width = run.info.components(ranking.site)
    return [
        Entry(cut(cell.layer, random_components(run, ranking.site, cell.layer, seed), cell.rate,
                  width, ranking.site),
              "random", "control", ranking.site, cell.layer, cell.rate, seed,
              run.recipe.search_task(ranking.arm), ranking.arm.only,
              main=ranking.arm.main and seed == 0)
        for seed in range(run.recipe.controls.random)
    ]


def record_ablations(run: ModelRun, entries: list[Entry], stage: str) -> None:
    """Write where ablations come from into the table ``ablations``."""
    run.record("ablations", [
        {
            "model": run.info.id,
            "ablation": e.ablation.digest,
            "method": e.method,
            "role": e.role,
            "site": e.site,
            "layer": e.layer,
            "rate": e.rate,
            "count": len(e.ablation),
            "seed": e.seed,
            "proxy": e.proxy,
            "only_task": e.only,
            "component_layers": [c.layer for c in e.ablation.components],
            "component_indices": [c.index for c in e.ablation.components],
        }
        for e in entries
    ], stage)  # fmt: skip
