"""The second stage: search the grid of (layer, rate) for every ranking, and choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from prunelib.components import BASELINE, Ablation, Site
from prunelib.pipeline.attributing import Ranking, random_units
from prunelib.pipeline.model_run import ModelRun
from prunelib.pipeline.units import GridJob, Prompts, Unit
from prunelib.search.choice import Cell, choose
from prunelib.search.ranking import cut


@dataclass(frozen=True)
class Entry:
    """An ablation with where it came from: a row of the table ``ablations``.

    Attributes:
        proxy: task on whose examples the search decided.
        only: the one task whose answers it is reported on, or ``None`` for all.
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


def grid(run: ModelRun, rankings: list[Ranking], priority: int) -> list[Unit]:
    """The untouched model on the search examples, then every ranking's layers."""
    searches = {run.searched(ranking.arm, ranking.sample): None for ranking in rankings}
    return [_grid_unit(run, prompts, run.info.layers - 1, (BASELINE,), priority)
            for prompts in searches] + [
        _grid_unit(run, run.searched(ranking.arm, ranking.sample), layer,
                   _cells(run, ranking, layer), priority)
        for ranking in rankings
        for layer in run.layers
    ]


def _grid_unit(run: ModelRun, prompts: Prompts, layer: int, ablations: tuple[Ablation, ...],
               priority: int) -> Unit:
    job = GridJob(prompts, layer, ablations, run.spec.dtype)
    return run.unit(job, len(ablations) * (2 * run.info.layers - layer), priority)


def _cells(run: ModelRun, ranking: Ranking, layer: int) -> tuple[Ablation, ...]:
    width = run.info.units(ranking.site)
    return tuple(cut(layer, ranking.orders[layer], rate, width, ranking.site)
                 for rate in run.recipe.search.rates)


def choose_entries(run: ModelRun, rankings: list[Ranking], units: list[Unit]) -> list[Entry]:
    """The chosen ablations and their controls; everything of the grid is recorded."""
    outcomes = _outcomes(run, units)
    entries = [Entry(BASELINE, "none", "baseline")]
    tried: list[Entry] = []
    for ranking in rankings:
        found = outcomes[run.searched(ranking.arm, ranking.sample)]
        about: dict[str, Any] = {"site": ranking.site, "seed": ranking.seed,
                                 "proxy": run.recipe.search_task(ranking.arm),
                                 "only": ranking.arm.only}
        cells = []
        for layer in run.layers:
            pairs = zip(run.recipe.search.rates, _cells(run, ranking, layer), strict=True)
            for rate, ablation in pairs:
                cells.append(Cell(layer, rate, ablation, *found[ablation.digest]))
                tried.append(Entry(ablation, ranking.method, "grid", layer=layer, rate=rate,
                                   **about))
        cell = choose(cells)
        role = "control" if ranking.random else "chosen"
        entries.append(Entry(cell.ablation, ranking.method, role, layer=cell.layer,
                             rate=cell.rate, **about))
        if ranking.arm.main and not ranking.random:
            entries += _same_cell(run, ranking, cell)
    _record_ablations(run, entries, "choice")
    _record_ablations(run, tried, "grid")
    return entries


def _same_cell(run: ModelRun, ranking: Ranking, cell: Cell) -> list[Entry]:
    """Random components of the chosen layer, as many as were chosen."""
    width = run.info.units(ranking.site)
    return [
        Entry(cut(cell.layer, random_units(run, ranking.site, cell.layer, seed), cell.rate, width,
                  ranking.site),
              "random", "control", ranking.site, cell.layer, cell.rate, seed,
              run.recipe.search_task(ranking.arm), ranking.arm.only)
        for seed in range(run.recipe.controls.random)
    ]


def _outcomes(run: ModelRun, units: list[Unit]
              ) -> dict[Prompts, dict[str, tuple[Any, Any]]]:
    """Prompts of a search → ablation → (correct, copied) over them, in their order."""
    searched = {unit.id: unit.job.prompts for unit in units if isinstance(unit.job, GridJob)}
    table = run.store.read("predictions", list(searched)).sort_by("example")
    columns = table.select(["unit_id", "ablation", "correct", "copied"]).to_pydict()
    found: dict[Prompts, dict[str, tuple[list[bool], list[bool]]]] = {}
    owner: dict[tuple[Prompts, str], str] = {}
    for unit, ablation, correct, copied in zip(*columns.values(), strict=True):
        prompts = searched[unit]
        # Two rankings may share a cell: its answers count once.
        if owner.setdefault((prompts, ablation), unit) != unit:
            continue
        pair = found.setdefault(prompts, {}).setdefault(ablation, ([], []))
        pair[0].append(correct)
        pair[1].append(copied)
    return {prompts: {key: (np.array(a), np.array(b)) for key, (a, b) in of_prompts.items()}
            for prompts, of_prompts in found.items()}


def _record_ablations(run: ModelRun, entries: list[Entry], stage: str) -> None:
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
