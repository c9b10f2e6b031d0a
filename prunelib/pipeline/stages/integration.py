"""Integrated gradients to a tolerance: the same nodes for every prompt, raised layer by layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prunelib.attribution import quadrature
from prunelib.attribution.integrated_gradients import LayerScores, NodeGradients, layer_scores
from prunelib.attribution.sampling import Moments, Sampling, query_blocks, sampling
from prunelib.pipeline.stages.attribution_jobs import AttributeJob, moments_in
from prunelib.pipeline.stages.rankings import scored_together
from prunelib.pipeline.stages.score_records import Precision, record_gaps, record_scores
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import PromptsRef
from prunelib.pipeline.units.steps import Step, needs
from prunelib.pipeline.units.unit import Unit
from prunelib.recipe.arms import RankingRequest

Array = NDArray[np.float64]


def to_tolerance(run: ModelRun, request: RankingRequest, sample: PromptsRef, tolerance: float
                 ) -> Step[dict[int, Array]]:
    """Raise the nodes of every layer until the error of its mean scores is small enough."""
    spec = request.spec
    groups = scored_together(run, request)
    queries = sample.queries
    blocks = query_blocks(queries, spec.block)
    samples: dict[int, Sampling] = {}
    # Layers scaled together → layer → blocks of prompts → levels.
    parts: dict[tuple[int, ...], dict[int, list[list[NodeGradients]]]] = {g: {} for g in groups}
    scores: dict[int, Array] = {}
    for level, nodes in enumerate(quadrature.NODES):
        units = {group: _attribute_units(run, request, sample, blocks, group, level)
                 for group in parts}
        yield needs(unit for of_group in units.values() for unit in of_group)
        for group in list(parts):
            found, known = _gradients(run, units[group], group)
            for layer in group:
                if level == 0:
                    samples[layer] = sampling(
                        [of_block[layer] for of_block in known],
                        [quadrature.weights(0) @ new[layer].sums for new in found],
                        [[queries[i] for i in block] for block in blocks])
                before = parts[group].get(layer) or [[] for _ in found]
                parts[group][layer] = [[*old, new[layer]]
                                       for old, new in zip(before, found, strict=True)]
            results = {layer: layer_scores(parts[group][layer], level, spec.variant == "released")
                       for layer in group}
            error = max(result.error for result in results.values())
            if error <= tolerance or nodes >= spec.max_nodes:
                del parts[group]
                for layer, result in results.items():
                    scores[layer] = result.scores
                    _record(run, request, sample, layer, result,
                            samples[layer].scaled(result.scale), nodes)
                if spec.variant != "released":  # its scores are not meant to add up to anything
                    record_gaps(run, request, group[0], nodes,
                                [i for block in blocks for i in block],
                                np.sum([r.totals for r in results.values()], axis=0),
                                results[group[0]].deltas)
        if not parts:
            break
    return scores


def _attribute_units(run: ModelRun, request: RankingRequest, sample: PromptsRef,
                     blocks: list[list[int]], layers: tuple[int, ...], level: int) -> list[Unit]:
    cost = (run.info.layers - layers[0]) * len(quadrature.new_nodes(level))
    return [run.unit(AttributeJob.of(run, request, sample, block, layers, level), cost)
            for block in blocks]


def _gradients(run: ModelRun, units: list[Unit], layers: tuple[int, ...]
               ) -> tuple[list[dict[int, NodeGradients]], list[dict[int, Moments]]]:
    """Block → layer → what its unit found at each node, and over queries."""
    table = run.store.read("attribution_parts", [unit.id for unit in units])
    owners, where = np.array(table["unit_id"].to_pylist()), np.array(table["layer"].to_pylist())
    found, known = [], []
    for unit in units:
        of_unit, over_queries = {}, {}
        for layer in layers:
            rows = table.filter((owners == unit.id) & (where == layer))
            of_unit[layer] = NodeGradients(*(np.array(rows[name].to_pylist())
                                             for name in ("alpha", "sums", "totals", "values")))
            over_queries[layer] = moments_in(rows.slice(rows.num_rows - 1).to_pylist()[0])
        found.append(of_unit)
        known.append(over_queries)
    return found, known


def _record(run: ModelRun, request: RankingRequest, sample: PromptsRef, layer: int,
            found: LayerScores, known: Sampling, nodes: int) -> None:
    record_scores(run, request, sample, layer, found.scores, Precision(
        errors=known.errors, halves=known.halves, nodes=nodes, quadrature=found.error,
        gap=float(np.median(np.abs(found.gaps)))))
