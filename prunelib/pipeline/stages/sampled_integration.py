"""Integrated gradients as precise as prompts allow: few nodes, and prompts until it is enough.

How much a mean over prompts says is limited by the prompts long before the nodes of each matter
(docs/results/precision.md). So every prompt gets a few nodes of its own
(:mod:`prunelib.attribution.shifted_nodes`), whose errors average out; a layer gets more nodes only
where their error is larger than that of the sample, and more prompts as long as two halves of
them disagree on what would be switched off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from prunelib.attribution.aggregation import Estimate, aggregate, half_scores, overlap
from prunelib.attribution.sampling import enough, query_blocks
from prunelib.attribution.shifted_nodes import NODES
from prunelib.pipeline.stages.attribution_jobs import PromptScoresJob
from prunelib.pipeline.stages.rankings import scored_together
from prunelib.pipeline.stages.score_records import Precision, record_gaps, record_scores
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import PromptsRef
from prunelib.pipeline.units.steps import Step, needs
from prunelib.pipeline.units.unit import Unit
from prunelib.recipe.arms import RankingRequest
from prunelib.search.selection import count_at, in_order

Array = NDArray[np.float64]


@dataclass
class _Layers:
    """Layers that are scored together, as far as they are known.

    Attributes:
        layers: which.
        level: of the nodes of every prompt.
        blocks: of prompts that are scored.
        known: layer → scores of every prompt ``[prompts, components]``, in the order of the blocks.
        totals: scores of every prompt, summed over components and layers, ``[prompts]``.
        deltas: what the objective changes by between the ends of the path, ``[prompts]``.
        quadrature: layer → estimated error of its mean scores by the quadrature, relative.
    """

    layers: tuple[int, ...]
    level: int
    blocks: list[list[int]]
    known: dict[int, Array] = field(default_factory=dict)
    totals: Array = field(default_factory=lambda: np.zeros(0))
    deltas: Array = field(default_factory=lambda: np.zeros(0))
    quadrature: dict[int, float] = field(default_factory=dict)


def to_precision(run: ModelRun, request: RankingRequest, sample: PromptsRef
                 ) -> Step[dict[int, Array]]:
    """Scores of every layer; ``sample``: prompts to begin with, and those that may follow."""
    spec = request.spec
    queries, blocks = sample.queries, query_blocks(sample.queries, spec.block)
    first = enough(blocks, spec.prompts)
    open_groups = [_Layers(group, 0, blocks[:first]) for group in scored_together(run, request)]
    scores: dict[int, Array] = {}
    while open_groups:
        units = [_units(run, request, sample, group) for group in open_groups]
        yield needs(unit for of_group in units for unit in of_group)
        again = []
        for group, of_group in zip(open_groups, units, strict=True):
            _read(run, group, of_group)
            order = [i for block in group.blocks for i in block]
            asked = [queries[i] for i in order]
            found = {layer: aggregate(each, asked, spec.aggregate_prompts)
                     for layer, each in group.known.items()}
            if _more_nodes(request, group, found):
                group.level += 1
                again.append(group)
                continue
            shared = {layer: _overlap(run, request, each, asked)
                      for layer, each in group.known.items()}
            if _more_prompts(request, shared) and len(group.blocks) < len(blocks):
                group.blocks = blocks[: enough(blocks, 2 * len(order))]
                again.append(group)
                continue
            scores |= _done(run, request, replace(sample, indices=tuple(
                sample.indices[i] for i in order)), group, found, shared)
        open_groups = again
    return scores


def _units(run: ModelRun, request: RankingRequest, sample: PromptsRef, group: _Layers
           ) -> list[Unit]:
    """A unit for every block and level, by block, then by level."""
    above = run.info.layers - group.layers[0]
    return [run.unit(PromptScoresJob.of(run, request, sample, block, group.layers, level),
                     above * NODES[max(0, level - 1)])
            for block in group.blocks for level in range(group.level + 1)]


def _read(run: ModelRun, group: _Layers, units: list[Unit]) -> None:
    """Fill in what the rows of the units say."""
    found = run.store.read("prompt_scores", [unit.id for unit in units])
    place = {unit.id: i for i, unit in enumerate(units)}
    # Stable, so the prompts of a unit stay in its order.
    found = found.take(np.argsort([place[unit] for unit in found["unit_id"].to_pylist()],
                                  kind="stable"))
    layers, levels = found["layer"].to_numpy(), found["level"].to_numpy()
    for layer in group.layers:
        first, *further = (found.filter((layers == layer) & (levels == level))
                           for level in range(group.level + 1))
        half, mean = first["half_difference"].to_numpy(), _each(first)
        for new in map(_each, further):  # as many nodes as all before together
            half, mean = (((new - mean) / 2) ** 2).sum(1), (mean + new) / 2
        norm = float(np.linalg.norm(mean.mean(0)))
        group.known[layer] = mean
        group.quadrature[layer] = float(np.sqrt(half.sum())) / len(mean) / norm if norm else 0.0
        group.deltas = first["value_end"].to_numpy() - first["value_start"].to_numpy()
    group.totals = np.sum([mean.sum(1) for mean in group.known.values()], axis=0)


def _each(rows: pa.Table) -> Array:
    """Scores of every prompt, ``[prompts, components]``; no number becomes a Python object."""
    values = rows["scores"].combine_chunks().flatten()
    return np.asarray(values, np.float64).reshape(rows.num_rows, -1)


def _overlap(run: ModelRun, request: RankingRequest, each: Array, asked: Sequence[str]
             ) -> float | None:
    width = each.shape[1]
    counts = [count_at(rate, width) for rate in run.recipe.search.rates]
    return overlap(each, asked, request.spec.aggregate_prompts,
                   partial(in_order, rank=request.spec.rank), sorted(set(counts)))


def _more_nodes(request: RankingRequest, group: _Layers, found: dict[int, Estimate]) -> bool:
    """Whether the nodes limit the scores, rather than the prompts."""
    if group.level + 1 == len(NODES) or NODES[group.level + 1] > request.spec.max_nodes:
        return False
    return any(group.quadrature[layer] > (estimate.sampling_error or 0.0)
               for layer, estimate in found.items())


def _more_prompts(request: RankingRequest, shared: dict[int, float | None]) -> bool:
    """Whether two halves of the prompts disagree on what would be switched off."""
    return any(of_layer is not None and of_layer < request.spec.overlap
               for of_layer in shared.values())


def _done(run: ModelRun, request: RankingRequest, scored: PromptsRef, group: _Layers,
          found: dict[int, Estimate], shared: dict[int, float | None]) -> dict[int, Array]:
    """Record what is known of some layers; their scores."""
    spec, nodes = request.spec, NODES[group.level]
    gap = float(np.median(np.abs(group.totals - group.deltas)))
    scores = {}
    for layer, estimate in found.items():
        # The released code divides the scores of a layer by their maximum.
        largest = float(estimate.scores.max())
        scale = 1 / largest if spec.variant == "released" and largest > 0 else 1.0
        scores[layer] = estimate.scores * scale
        record_scores(run, request, scored, layer, scores[layer], Precision(
            errors=None if estimate.errors is None else estimate.errors * scale,
            halves=half_scores(group.known[layer], scored.queries, spec.aggregate_prompts),
            overlap=shared[layer], nodes=nodes, quadrature=group.quadrature[layer], gap=gap))
    if spec.variant != "released":  # its scores are not meant to add up to anything
        record_gaps(run, request, group.layers[0], nodes, list(scored.indices), group.totals,
                    group.deltas)
    return scores
