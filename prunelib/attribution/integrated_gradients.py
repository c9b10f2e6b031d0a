"""Integrated gradients of neurons along the path that scales a projection's rows from 0 to 1.

Scaling weight row j by α scales the pre-activation z_j by α at every position, so the row's
attribution is ∫ ∂F/∂s_j dα for a scale vector s on the projection's output (papers.md §1.3):
no weight gradient is ever formed. One layer at a time, all its neurons together; a bias is not
scaled. All α and all prompts of a block are rows of the same batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunelib.attribution import quadrature
from prunelib.attribution.encoding import Batch, Encoded, pad_left
from prunelib.attribution.objectives import Objective
from prunelib.attribution.replay import Prefix, clean_prefix, last_position_only, started_at
from prunelib.models import Loaded

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Rows (α × prompt) of one forward and backward pass. Fixed, not fitted to the machine: the
#: rounding of a batch depends on its shape, and scores must not depend on the worker.
ROWS = 100

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NodeGradients:
    """What one block of prompts contributes at each α.

    Attributes:
        alphas: the nodes, ``[nodes]``.
        sums: ∂F/∂s summed over the block's prompts, ``[nodes, neurons]``.
        totals: ∂F/∂s summed over neurons, per prompt, ``[nodes, prompts]``.
        values: the objective F, ``[nodes, prompts]``.
    """

    alphas: Array
    sums: Array
    totals: Array
    values: Array


def block_gradients(
    loaded: Loaded,
    layer: int,
    prompts: Sequence[Encoded],
    objective: Objective,
    alphas: Array,
    rows: int = ROWS,
) -> NodeGradients:
    """Gradients with respect to the scale vector of one layer, at every α, for one block.

    ``rows`` (α × prompt) go through the model at a time, but at least one α.
    """
    batch = pad_left([p.prompt for p in prompts], loaded.tokenizer.pad_token_id, loaded.device)
    unscaled = loaded.adapter.unscaled
    prefix = clean_prefix(loaded, batch, layer, unscaled)
    at_once = min(len(alphas), max(1, rows // len(prompts)))
    repeated = prefix.repeat(at_once)
    sums, totals, values = [], [], []
    with started_at(loaded, layer, unscaled) as replayed, last_position_only(loaded):
        for start in range(0, len(alphas), at_once):
            chunk = alphas[start : start + at_once]
            if len(chunk) < at_once:
                repeated = prefix.repeat(len(chunk))
            replayed.prefix = repeated
            gradient, value = _scaled_pass(
                loaded, layer, list(prompts), batch, repeated, objective, chunk
            )
            shaped = gradient.double().reshape(len(chunk), len(prompts), -1)
            sums.append(shaped.sum(1).cpu().numpy())
            totals.append(shaped.sum(2).cpu().numpy())
            values.append(value.double().reshape(len(chunk), len(prompts)).cpu().numpy())
    return NodeGradients(alphas, np.concatenate(sums), np.concatenate(totals),
                         np.concatenate(values))


def _scaled_pass(
    loaded: Loaded,
    layer: int,
    prompts: list[Encoded],
    batch: Batch,
    prefix: Prefix,
    objective: Objective,
    alphas: Array,
) -> tuple[Tensor, Tensor]:
    """∂F/∂s ``[rows, neurons]`` and F ``[rows]``, rows ordered by α, then by prompt."""
    import torch

    times = len(alphas)
    scale = torch.tensor(alphas, dtype=prefix.stream.dtype, device=prefix.stream.device)
    scale = scale.repeat_interleave(len(prompts))[:, None].repeat(1, loaded.info.width)
    scale.requires_grad_(True)
    projection = loaded.adapter.scaled_projection(loaded.model, layer)
    handle = projection.register_forward_hook(_scaling(scale))
    try:
        with torch.enable_grad():
            logits = loaded.model(
                **batch.repeat(times).inputs(), use_cache=False, logits_to_keep=1
            ).logits[:, -1]
            value = objective(logits, prompts * times)
            (gradient,) = torch.autograd.grad(value.sum(), scale)
    finally:
        handle.remove()
    return gradient, value.detach()


def _scaling(scale: Tensor):  # type: ignore[no-untyped-def]
    """Hook that scales the weight part of a projection's output, row by row of the batch.

    OPT's outputs have rows and positions in one dimension.
    """

    def hook(module: torch.nn.Module, _: object, output: Tensor) -> Tensor:
        bias = getattr(module, "bias", None)
        by_row = output.reshape(len(scale), -1, output.shape[-1])
        if bias is None:
            by_row = by_row * scale[:, None, :]
        else:
            by_row = bias + (by_row - bias) * scale[:, None, :]
        return by_row.reshape(output.shape)

    return hook


@dataclass(frozen=True)
class LayerScores:
    """Scores of one layer at one quadrature level.

    Attributes:
        scores: mean over prompts of each neuron's attribution, ``[neurons]``.
        error: estimated relative L2 error of ``scores``: their distance to the rule with half
            the intervals, which is about the error of that rule. Extrapolating from it was tried
            and is not safe: where F switches abruptly, one small step says little of the next.
        totals: Σ_j IG_j of each prompt, ``[prompts]``.
        deltas: F(1) − F(0) of each prompt, ``[prompts]``.
    """

    scores: Array
    error: float
    totals: Array
    deltas: Array

    @property
    def gaps(self) -> Array:
        """Completeness gap Σ_j IG_j − (F(1) − F(0)) of each prompt."""
        return self.totals - self.deltas


def layer_scores(blocks: Sequence[Sequence[NodeGradients]], level: int) -> LayerScores:
    """Reduce gradients to scores: ``blocks[b][i]`` holds what level ``i`` added for block b.

    Sums run over blocks in the order given, whoever computed them, so scores are bit-equal for
    any number of workers.
    """
    order = quadrature.ascending(level)
    fine, coarse = quadrature.weights(level), quadrature.coarse_weights(level)

    def joined(field: str) -> list[Array]:
        return [
            np.concatenate([getattr(part, field) for part in parts[: level + 1]])[order]
            for parts in blocks
        ]

    sums = joined("sums")
    total = sums[0]
    for block in sums[1:]:
        total = total + block
    totals, values = np.hstack(joined("totals")), np.hstack(joined("values"))
    prompts = totals.shape[1]
    scores, rough = fine @ total / prompts, coarse @ total / prompts
    norm = float(np.linalg.norm(scores))
    error = float(np.linalg.norm(scores - rough)) / norm if norm > 0 else 0.0
    return LayerScores(scores, error, fine @ totals, values[-1] - values[0])
