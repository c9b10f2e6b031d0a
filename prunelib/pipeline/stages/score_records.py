"""Rows about scores: of every component, and of how far they are from what they explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunelib.pipeline.stages.rankings import scored_site
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import PromptsRef
from prunelib.recipe.arms import RankingRequest
from prunelib.search.selection import in_order

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Precision:
    """How far the scores of a layer can be trusted; ``None`` where that is not known.

    Attributes:
        errors: standard errors over queries, ``[components]``.
        halves: scores by either half of the queries, ``[2, components]``.
        overlap: :func:`prunelib.attribution.aggregation.overlap`.
        nodes: quadrature nodes of every prompt.
        quadrature: estimated relative error of the scores by the quadrature.
        gap: median of the prompts' absolute completeness gaps.
    """

    errors: Array | None = None
    halves: Array | None = None
    overlap: float | None = None
    nodes: int | None = None
    quadrature: float | None = None
    gap: float | None = None


def record_scores(run: ModelRun, request: RankingRequest, sample: PromptsRef, layer: int,
                  scores: Array, known: Precision | None = None) -> None:
    """One row per component of a layer; ``sample`` are the prompts behind its score."""
    order, known = request.spec.rank, known or Precision()
    setting = {
        "shots": sample.shots, "format": str(sample.format),
        "site": scored_site(run.info, request.spec),
        "prompts": len(sample.indices), "queries": len(set(sample.queries)),
        "error_estimate": known.quadrature, "completeness_error": known.gap,
        "overlap": known.overlap,
    }
    halves = (None, None) if known.halves is None else tuple(
        {index: place for place, index in enumerate(in_order(half, order), 1)}
        for half in known.halves)
    run.record("attributions", [
        _about(run, request, layer, known.nodes) | setting
        | {"index": index, "score": float(scores[index]), "rank": place,
           "standard_error": None if known.errors is None else float(known.errors[index]),
           "first_half_rank": None if halves[0] is None else halves[0][index],
           "second_half_rank": None if halves[1] is None else halves[1][index]}
        for place, index in enumerate(in_order(scores, order), 1)
    ], "scores")


def record_gaps(run: ModelRun, request: RankingRequest, layer: int, nodes: int,
                examples: list[int], totals: Array, deltas: Array) -> None:
    """Completeness gaps of prompts: Σ of their scores ``[prompts]`` and what F changes by.

    Layers scaled together explain one change together, so have one gap, at the first ``layer``.
    """
    run.record("completeness_gaps", [
        _about(run, request, layer, nodes)
        | {"example": i, "total": float(total), "delta": float(delta), "gap": float(total - delta)}
        for i, total, delta in sorted(zip(examples, totals, deltas, strict=True))
    ], "gaps")


def _about(run: ModelRun, request: RankingRequest, layer: int, nodes: int | None
           ) -> dict[str, Any]:
    return {"model": run.info.id, "method": request.spec.label, "layer": layer, "nodes": nodes,
            "objective": (request.spec.objective.label
                          if request.spec.computation.needs_objective else None),
            "proxy": request.task, "seed": request.seed}
