"""What one model goes through: score components → choose an ablation → evaluate it.

:func:`stages` is a generator. It yields the units of the next stage, is resumed when all of them
are done, and decides what follows from their files alone. So stages have a barrier only within a
model, a finished stage costs one look at a folder, and a driver that died is replaced by one that
starts from the beginning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunelib.attribution import quadrature
from prunelib.attribution.integrated_gradients import LayerScores, NodeGradients, layer_scores
from prunelib.components import BASELINE, Ablation
from prunelib.config import ModelSpec, Recipe
from prunelib.engines.choose import choose_engine
from prunelib.identity import digest
from prunelib.models import ModelInfo, planted_units
from prunelib.pipeline.units import AttributeJob, CanaryJob, EvaluateJob, GridJob, Job, Unit
from prunelib.pipeline.work import canary_of
from prunelib.results.store import Store
from prunelib.search.choice import Cell, choose
from prunelib.search.ranking import by_score, cut, random_order
from prunelib.tasks import get_task

#: Rankings of one model: layer → units, most important first.
Ranking = dict[int, tuple[int, ...]]
#: Where a ranking comes from: its method, and the seed if it is random.
Origin = tuple[str, int | None]


@dataclass(frozen=True)
class Entry:
    """An ablation with where it came from: a row of the table ``ablations``."""

    ablation: Ablation
    method: str
    role: str
    layer: int | None = None
    rate: float | None = None
    seed: int | None = None


class ModelRun:
    """One model of a recipe, on its way through the stages."""

    def __init__(
        self, recipe: Recipe, spec: ModelSpec, info: ModelInfo, store: Store, record: bool = True
    ) -> None:
        """Prepare a model; without ``record`` nothing is written, which is how a plan looks."""
        self.recipe = recipe
        self.spec = spec
        self.info = info
        self.store = store
        self.record = record
        layers = recipe.search.layers
        self.layers = tuple(range(info.layers)) if layers == "all" else layers
        #: Files that this run's results consist of: (table, unit id, stage).
        self.files: list[tuple[str, str, str]] = []

    def stages(self) -> Iterator[list[Unit]]:
        """Yield the units of one stage after the other, each once; resume when they are done."""
        seen: set[str] = set()
        for units in self._stages():
            new = [unit for unit in units if unit.id not in seen]
            seen.update(unit.id for unit in new)
            if new:
                yield new

    def _stages(self) -> Iterator[list[Unit]]:
        """As :meth:`stages`; with a deadline, later stages name units of earlier ones again."""
        self._record("models", [self._model_row()], "model")
        planted = planted_units(self.info)
        if planted:
            self._record("planted", [{"model": self.info.id, "layer": layer, "index": index}
                                     for layer, index in planted], "planted")
        scores: dict[int, LayerScores] = {}
        yield from self._attribution(scores)
        method, controls = self._rankings(scores)
        if self.recipe.deadline is None:
            yield from self._comparison(method | controls, first=True, extras=True)
        else:  # two searches instead of one, so that the main comparison is there early
            yield from self._comparison(method, first=True, extras=False)
            yield from self._comparison(method | controls, first=False, extras=True)

    def _comparison(self, rankings: dict[Origin, Ranking], first: bool, extras: bool
                    ) -> Iterator[list[Unit]]:
        """Search the grid, choose, evaluate: the main comparison ``first``, then ``extras``."""
        urgency = 0 if first else 1
        yield (units := self._grid(rankings, urgency))
        entries = self._choose(rankings, units)
        yield (canaries := self._canaries(entries, urgency))
        yield self._evaluation(entries, canaries, extras)

    def _record(self, table: str, rows: list[dict[str, Any]], stage: str) -> str:
        """Write rows that the driver itself decides on, named by their content."""
        unit_id = f"{stage}-{digest('rows', [self.info.key, rows])}"
        if self.record and not self.store.has(table, unit_id):
            self.store.write(table, unit_id, [row | {"unit_id": unit_id} for row in rows])
        self.files.append((table, unit_id, stage))
        return unit_id

    def _model_row(self) -> dict[str, Any]:
        names = ("revision", "weights_digest", "tokenizer_digest", "model_type", "layers", "width")
        return {"model": self.info.id} | {name: getattr(self.info, name) for name in names}

    def _attribution(self, scores: dict[int, LayerScores]) -> Iterator[list[Unit]]:
        """Raise the nodes of every layer until the error of its mean scores is small enough."""
        spec = self.recipe.attribution
        # Layer → blocks of prompts → levels.
        parts: dict[int, list[list[NodeGradients]]] = {layer: [] for layer in self.layers}
        for level, nodes in enumerate(quadrature.NODES):
            units = {layer: self._attribute_units(layer, level) for layer in parts}
            yield [unit for of_layer in units.values() for unit in of_layer]
            for layer in list(parts):
                found = self._gradients(units[layer])
                parts[layer] = [[*before, new] for before, new in
                                zip(parts[layer] or [[]] * len(found), found, strict=True)]
                of_layer = layer_scores(parts[layer], level)
                if of_layer.error <= spec.tolerance or nodes >= spec.max_nodes:
                    scores[layer] = of_layer
                    del parts[layer]
                    self._record_scores(layer, nodes, of_layer)
            if not parts:
                return

    def _attribute_units(self, layer: int, level: int) -> list[Unit]:
        spec = self.recipe.attribution
        above = self.info.layers - layer
        return [
            self._unit(
                AttributeJob(
                    objective=spec.objective,
                    task=spec.proxy,
                    task_digest=get_task(spec.proxy).digest,
                    shots=spec.shots,
                    seed=spec.seed,
                    start=start,
                    stop=min(start + spec.block, spec.prompts),
                    layer=layer,
                    level=level,
                    dtype=self.spec.dtype,
                ),
                cost=above * len(quadrature.new_nodes(level)),
            )
            for start in range(0, spec.prompts, spec.block)
        ]

    def _gradients(self, units: list[Unit]) -> list[NodeGradients]:
        table = self.store.read("attribution_parts", [unit.id for unit in units])
        owners = np.array(table["unit_id"].to_pylist())
        found = []
        for unit in units:
            rows = table.filter(owners == unit.id)
            found.append(NodeGradients(*(np.array(rows[name].to_pylist())
                                         for name in ("alpha", "sums", "totals", "values"))))
        return found

    def _record_scores(self, layer: int, nodes: int, found: LayerScores) -> None:
        spec = self.recipe.attribution
        about = {"model": self.info.id, "method": spec.method, "objective": spec.objective,
                 "layer": layer, "nodes": nodes}
        setting = {"proxy": spec.proxy, "shots": spec.shots, "seed": spec.seed,
                   "site": self.info.site, "prompts": spec.prompts,
                   "error_estimate": found.error,
                   "completeness_error": float(np.median(np.abs(found.gaps)))}
        rows = [
            about | setting | {"index": unit, "score": float(found.scores[unit]), "rank": rank}
            for rank, unit in enumerate(by_score(found.scores), 1)
        ]
        self._record("attributions", rows, "scores")
        gaps = [
            about | {"example": i, "total": float(total), "delta": float(delta),
                     "gap": float(total - delta)}
            for i, (total, delta) in enumerate(zip(found.totals, found.deltas, strict=True))
        ]
        self._record("completeness_gaps", gaps, "gaps")

    def _rankings(self, scores: dict[int, LayerScores]
                  ) -> tuple[dict[Origin, Ranking], dict[Origin, Ranking]]:
        """The method's ranking and the random ones, all to go through the same search."""
        method = {layer: by_score(found.scores) for layer, found in sorted(scores.items())}
        controls: dict[Origin, Ranking] = {
            ("random_search", seed): self._random(seed)
            for seed in range(self.recipe.controls.random)
        }
        return {(self.recipe.attribution.method, None): method}, {**controls}

    def _random(self, seed: int) -> Ranking:
        return {layer: random_order(self.info.width, layer, seed) for layer in self.layers}

    def _cells(self, ranking: Ranking, layer: int) -> tuple[Ablation, ...]:
        return tuple(cut(layer, ranking[layer], rate, self.info.width, self.info.site)
                     for rate in self.recipe.search.rates)

    def _unit(self, job: Job, cost: float = 1.0, priority: int = 0) -> Unit:
        split = self.spec.tensor_parallel
        return Unit(self.info, job, cost, priority, None if split == "auto" else split)

    def _grid_unit(self, layer: int, ablations: tuple[Ablation, ...], priority: int) -> Unit:
        spec = self.recipe.search
        job = GridJob(spec.proxy, get_task(spec.proxy).digest, spec.shots, spec.seed,
                      spec.examples, layer, ablations, self.spec.dtype)
        return self._unit(job, len(ablations) * (2 * self.info.layers - layer), priority)

    def _grid(self, rankings: dict[Origin, Ranking], priority: int) -> list[Unit]:
        """The untouched model on the search examples, then every ranking's layers."""
        return [self._grid_unit(self.info.layers - 1, (BASELINE,), priority)] + [
            self._grid_unit(layer, self._cells(ranking, layer), priority)
            for ranking in rankings.values()
            for layer in self.layers
        ]

    def _choose(self, rankings: dict[Origin, Ranking], units: list[Unit]) -> list[Entry]:
        """The chosen ablation and its controls; everything of the grid is recorded."""
        outcomes = self._outcomes(units)
        entries = [Entry(BASELINE, "none", "baseline")]
        tried: list[Entry] = []
        for (method, seed), ranking in rankings.items():
            cells = []
            for layer in self.layers:
                pairs = zip(self.recipe.search.rates, self._cells(ranking, layer), strict=True)
                for rate, ablation in pairs:
                    cells.append(Cell(layer, rate, ablation, *outcomes[ablation.digest]))
                    tried.append(Entry(ablation, method, "grid", layer, rate, seed))
            cell = choose(cells)
            role = "chosen" if seed is None else "control"
            found = Entry(cell.ablation, method, role, cell.layer, cell.rate, seed)
            entries.append(found)
            if seed is None:
                entries += self._same_cell(cell)
        self._record_ablations(entries, "choice")
        self._record_ablations(tried, "grid")
        return entries

    def _same_cell(self, cell: Cell) -> list[Entry]:
        """Random components of the chosen layer, as many as were chosen."""
        which = self.recipe.search.rates.index(cell.rate)
        return [
            Entry(self._cells(self._random(seed), cell.layer)[which], "random", "control",
                  cell.layer, cell.rate, seed)
            for seed in range(self.recipe.controls.random)
        ]

    def _outcomes(self, units: list[Unit]) -> dict[str, tuple[Any, Any]]:
        """Ablation → (correct, copied) over the search examples, in their order."""
        table = self.store.read("predictions", [unit.id for unit in units]).sort_by("example")
        columns = table.select(["ablation", "correct", "copied"]).to_pydict()
        found: dict[str, tuple[list[bool], list[bool]]] = {}
        for ablation, correct, copied in zip(*columns.values(), strict=True):
            pair = found.setdefault(ablation, ([], []))
            pair[0].append(correct)
            pair[1].append(copied)
        return {key: (np.array(a), np.array(b)) for key, (a, b) in found.items()}

    def _record_ablations(self, entries: list[Entry], stage: str) -> None:
        self._record("ablations", [
            {
                "model": self.info.id,
                "ablation": e.ablation.digest,
                "method": e.method,
                "role": e.role,
                "site": self.info.site,
                "layer": e.layer,
                "rate": e.rate,
                "count": len(e.ablation),
                "seed": e.seed,
                "component_layers": [c.layer for c in e.ablation.components],
                "component_indices": [c.index for c in e.ablation.components],
            }
            for e in entries
        ], stage)  # fmt: skip

    def _canaries(self, entries: list[Entry], priority: int) -> list[Unit]:
        task = get_task(self.recipe.search.proxy)
        different = {entry.ablation.digest: entry.ablation for entry in entries}
        return [self._unit(CanaryJob(task.name, task.digest, ablation, self.spec.dtype),
                           priority=priority)
                for ablation in different.values()]

    def _evaluation(self, entries: list[Entry], canaries: list[Unit], extras: bool
                    ) -> list[Unit]:
        """Every ablation on every task; the baseline twice, for the noise floor (an extra)."""
        rows = self.store.read("canaries", [unit.id for unit in canaries]).to_pylist()
        expected = {row["ablation"]: canary_of(row) for row in rows}
        spec = self.recipe.evaluate
        engine = choose_engine(self.recipe.engine, self.info)
        different = {entry.ablation.digest: entry.ablation for entry in entries}
        passes = [(a, 0) for a in different.values()] + [(BASELINE, 1)] * extras
        main = {entry.ablation.digest for entry in entries
                if entry.method != "random_search" and not entry.seed}
        return [
            self._unit(
                EvaluateJob(
                    task=task, task_digest=get_task(task).digest, shots=shots, seed=seed,
                    examples=spec.examples, repeat=repeat, format=spec.format, ablation=ablation,
                    engine="vllm" if engine == "vllm" else "transformers",
                    dtype=self.spec.dtype, canary=expected[ablation.digest],
                ),
                # Only a deadline is worth ending an engine whose model still has extras to do.
                priority=int(self.recipe.deadline is not None
                             and (repeat > 0 or ablation.digest not in main)),
            )
            for ablation, repeat in passes
            for task in spec.tasks
            for shots in spec.shots
            for seed in spec.seeds
        ]  # fmt: skip
