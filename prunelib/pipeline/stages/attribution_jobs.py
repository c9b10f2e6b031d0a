"""Units of attribution: what a worker computes for one layer and one block of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

import numpy as np

from prunelib.attribution import quadrature, shifted_nodes
from prunelib.attribution.objectives.base import objective_digest
from prunelib.attribution.sampling import Moments, moments
from prunelib.pipeline.stages.search import GridJob
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import PromptsRef
from prunelib.pipeline.units.unit import Job, Row, Unit, Workplace
from prunelib.recipe.arms import RankingRequest
from prunelib.recipe.attribution import ObjectiveSpec
from prunelib.vocabulary import Purpose, Stage

if TYPE_CHECKING:
    from prunelib.attribution.integrated_gradients import Array, NodeGradients, Path
    from prunelib.attribution.objectives.base import Objective
    from prunelib.models import Loaded
    from prunelib.tasks.tokenization import Encoded

Projection = Literal["gate", "up", "down"]
#: Paths along which gradients are integrated.
IntegratedPath = Literal["layer", "joint", "last_position"]


@dataclass(frozen=True)
class _ScoringJob(Job):
    """What all jobs that score components know."""

    stage: ClassVar[Stage] = "attribute"

    objective: ObjectiveSpec = field(compare=False)  # its digest identifies it
    objective_digest: str
    projection: Projection | None
    prompts: PromptsRef
    #: One layer, or those that are scored together.
    layers: tuple[int, ...]

    def _where(self) -> str:
        return f"layer {self.layers[0]}" if len(self.layers) == 1 else f"{len(self.layers)} layers"

    def _block(self) -> str:
        return f"{len(self.prompts.indices)} prompts from {self.prompts.indices[0]}"

    def _part(self, unit: Unit, layer: int, level: int, alpha: float, sums: Any,
              totals: Any = (), values: Any = (), found: Moments | None = None) -> Row:
        """A row of ``attribution_parts``: sums over the prompts of the block."""
        return {"model": unit.model.id, "layer": layer, "start": self.prompts.indices[0],
                "level": level, "alpha": alpha, "sums": sums, "totals": totals, "values": values,
                "squares": [], "weighted": [], "half": [],
                "unit_id": unit.id} | ({} if found is None else vars(found))


@dataclass(frozen=True)
class GradientsJob(_ScoringJob):
    """Gradients along a path, at the nodes that one quadrature level adds, for one block."""

    path: IntegratedPath
    released: bool
    level: int

    @classmethod
    def of(cls, run: ModelRun, request: RankingRequest, sample: PromptsRef, block: list[int],
           layers: tuple[int, ...], level: int) -> Self:
        """The job of some layers for a block of an attribution's prompts."""
        spec = request.spec
        return cls(
            objective=spec.objective,
            objective_digest=objective_digest(spec.objective),
            path=cast("IntegratedPath", spec.path),
            released=spec.variant == "released",
            projection=spec.projection,
            prompts=replace(sample, indices=tuple(sample.indices[i] for i in block)),
            layers=layers,
            level=level,
            dtype=run.spec.dtype,
        )

    def _gradients(self, worker: Workplace, unit: Unit,
                   nodes: Callable[[list[Encoded]], Array], weights: Array | None,
                   ends: bool = False) -> list[NodeGradients]:
        """Of every layer, at the ``nodes`` of the prompts, with sums by the rules ``weights``."""
        from prunelib.attribution.integrated_gradients import PATH_ROWS, Path, block_gradients
        from prunelib.attribution.objectives.base import make_objective

        loaded = worker.loaded(unit.model, self.dtype)
        prompts = self.prompts.encode(loaded.tokenizer)
        path = Path(self.layers, *loaded.adapter.projection(self.projection),
                    last_position=self.path == "last_position", released=self.released)
        objective = make_objective(self.objective, self.objective_digest)
        return block_gradients(loaded, path, prompts, objective, nodes(prompts),
                               PATH_ROWS >> worker.batch_halvings, weights, ends)


@dataclass(frozen=True)
class AttributeJob(GradientsJob):
    """∂F/∂s at the same nodes for every prompt."""

    kind: ClassVar[str] = "attribute"
    table: ClassVar[str] = "attribution_parts"

    def describe(self) -> str:
        return f"{self._where()}, {self._block()}, level {self.level}"

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        found = self._gradients(worker, unit, lambda _: quadrature.new_nodes(self.level),
                                None if self.level else quadrature.weights(0)[None])
        queries, rows = self.prompts.queries, []
        for layer, part in zip(self.layers, found, strict=True):
            rows += [self._part(unit, layer, self.level, float(alpha), part.sums[i],
                                part.totals[i], part.values[i])
                     for i, alpha in enumerate(part.alphas)]
            if part.each is not None:
                rows[-1] |= vars(moments(part.each[0], queries))
        return rows


@dataclass(frozen=True)
class PromptScoresJob(GradientsJob):
    """Integrated gradients of every prompt of a block, by nodes of its own."""

    kind: ClassVar[str] = "prompt_scores"
    table: ClassVar[str] = "prompt_scores"

    def describe(self) -> str:
        return f"{self._where()}, {self._block()}, {shifted_nodes.NODES[self.level]} nodes"

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        found = self._gradients(
            worker, unit, lambda prompts: shifted_nodes.new_nodes(
                self.level, [shifted_nodes.shift(p.prompt) for p in prompts]),
            shifted_nodes.rules(self.level), ends=self.level == 0)
        return [{"model": unit.model.id, "layer": layer, "example": example, "level": self.level,
                 "scores": mean.astype(np.float32), "half_difference": float((half**2).sum()),
                 "value_start": None if part.ends is None else float(part.ends[0, i]),
                 "value_end": None if part.ends is None else float(part.ends[1, i]),
                 "unit_id": unit.id}
                for layer, part in zip(self.layers, found, strict=True) if part.each is not None
                for i, (example, mean, half) in enumerate(zip(self.prompts.indices, *part.each,
                                                              strict=True))]


@dataclass(frozen=True)
class ScoreJob(_ScoringJob):
    """Scores of every neuron of some layers by another method than integrated gradients."""

    kind: ClassVar[str] = "score"
    table: ClassVar[str] = "attribution_parts"

    method: str

    def describe(self) -> str:
        return f"{self.method}, {self._where()}"

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        from prunelib.attribution.integrated_gradients import PATH_ROWS, Path
        from prunelib.attribution.objectives.base import make_objective

        loaded = worker.loaded(unit.model, self.dtype)
        prompts = self.prompts.encode(loaded.tokenizer)
        path = Path(self.layers, *loaded.adapter.projection(self.projection))
        objective = make_objective(self.objective, self.objective_digest)
        scores = self._scores(loaded, path, prompts, objective,
                              PATH_ROWS >> worker.batch_halvings)
        queries = self.prompts.queries
        return [self._part(unit, layer, 0, 1.0, of_layer * len(prompts)) if of_layer.ndim == 1
                else self._part(unit, layer, 0, 1.0, of_layer.sum(0),
                                found=moments(of_layer, queries))
                for layer, of_layer in zip(self.layers, scores, strict=True)]

    def _scores(self, loaded: Loaded, path: Path, prompts: Sequence[Encoded],
                objective: Objective, rows: int) -> Array:
        from prunelib.attribution.scorers.base import load_scorer

        return load_scorer(self.method)(loaded, path, prompts, objective, rows)


@dataclass(frozen=True)
class OwnScoreJob(ScoreJob):
    """Scores of every neuron of some layers by a function of the user's."""

    kind: ClassVar[str] = "own_score"

    #: Digest of the files that the function comes from.
    source: str

    def _scores(self, loaded: Loaded, path: Path, prompts: Sequence[Encoded],
                objective: Objective, rows: int) -> Array:
        from prunelib.attribution.own_scorers import scores_of
        from prunelib.own_functions import another, source_digest

        if source_digest("scorer", self.method) != self.source:
            raise another("scorer", self.method)
        return scores_of(self.method, super()._scores(loaded, path, prompts, objective, rows),
                         len(path.layers), len(prompts), loaded.info.components(path.site))


@dataclass(frozen=True)
class PoolJob(GridJob):
    """What the untouched model answers to prompts, so that attribution can choose among them."""

    kind: ClassVar[str] = "pool"
    stage: ClassVar[Stage] = "attribute"
    purpose: ClassVar[Purpose] = "pool"


def moments_in(row: Row) -> Moments:
    """What a row of ``attribution_parts`` knows of standard errors."""
    return Moments(*(np.array(row[name]) for name in ("squares", "weighted", "half")))
