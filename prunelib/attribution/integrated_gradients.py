"""Integrated gradients of neurons along the path that scales a projection's rows from 0 to 1.

Scaling weight row j by α scales the pre-activation z_j by α at every position, so the row's
attribution is ∫ ∂F/∂s_j dα for a scale vector s on the projection's output (formulas.md §1.3):
no weight gradient is ever formed. One layer at a time, all its neurons together; a bias is not
scaled. All α and all prompts of a block are rows of the same batches. :class:`Path` holds the
choices that the papers leave open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunelib.attribution import quadrature
from prunelib.attribution.objectives.base import Objective, Row
from prunelib.attribution.prefix_replay import clean_prefix, last_position_only, started_at
from prunelib.components import Site
from prunelib.models import Loaded
from prunelib.tasks.tokenization import Batch, Encoded, pad_left

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Rows (α × prompt) of one forward and backward pass. Fixed, not fitted to the machine: the
#: rounding of a batch depends on its shape, and scores must not depend on the worker.
PATH_ROWS = 100

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NodeGradients:
    """What one block of prompts contributes at each α.

    Attributes:
        alphas: the nodes, ``[nodes]``, or ``[nodes, prompts]`` where each prompt has its own.
        sums: ∂F/∂s summed over the block's prompts, ``[nodes, neurons]``.
        totals: ∂F/∂s summed over neurons, per prompt, ``[nodes, prompts]``.
        values: the objective F, ``[nodes, prompts]``.
        each: Σ over the nodes of weight × ∂F/∂s by every rule that was asked for,
            ``[rules, prompts, neurons]``.
        ends: the objective at α = 0 and at α = 1, ``[2, prompts]``, where that was asked for.
    """

    alphas: Array
    sums: Array
    totals: Array
    values: Array
    each: Array | None = None
    ends: Array | None = None


@dataclass(frozen=True)
class Path:
    """What is scaled from 0 to 1 (formulas.md §1.3 and §6, rows 2 and 3).

    Attributes:
        layers: one layer, or all of them for the joint path, ascending.
        projection: dotted path below a layer of the projection whose outputs are scaled.
        site: where such a neuron is switched off.
        last_position: scale only the position where the answer begins (as knowledge neurons do).
        released: take the gradient with respect to the neuron's value instead of its scale, so
            without the weight factor, and clamp it at zero, prompt by prompt: what the DSM
            paper's released code is reported to do (formulas.md §2.1).
    """

    layers: tuple[int, ...]
    projection: str
    site: Site
    last_position: bool = False
    released: bool = False


def layer_path(loaded: Loaded, layer: int) -> Path:
    """The default: the papers' projection of one layer, at every position."""
    return Path((layer,), *loaded.adapter.projection(None))


def block_gradients(
    loaded: Loaded,
    path: Path,
    prompts: Sequence[Encoded],
    objective: Objective,
    alphas: Array,
    rows: int = PATH_ROWS,
    weights: Array | None = None,
    ends: bool = False,
) -> list[NodeGradients]:
    """Gradients with respect to the scale vector of each layer of a path, at every α.

    ``rows`` (α × row of the objective) go through the model at a time, but at least one α.

    Args:
        loaded: the model.
        path: what is scaled.
        prompts: ``[prompts]``.
        objective: F.
        alphas: ``[nodes]``, or ``[nodes, prompts]`` where each prompt has nodes of its own.
        rows: as above.
        weights: of rules over the nodes, ``[rules, nodes]``: each prompt's weighted sums over the
            nodes are kept too.
        ends: whether F at both ends of the path is wanted, which costs no gradients.
    """
    texts = objective.rows(prompts)
    owners = np.array([text.owner for text in texts])
    by_text = (alphas if alphas.ndim == 2 else np.repeat(alphas[:, None], len(prompts), 1))[
        :, owners]
    batch = pad_left([t.prompt.prompt for t in texts], loaded.device)
    unscaled = loaded.adapter.unscaled
    prefix = clean_prefix(loaded, batch, path.layers[0], unscaled)
    at_once = min(len(alphas), max(1, rows // len(texts)))
    repeated = prefix.repeat(at_once)
    found = [_Summed() for _ in path.layers]
    values, known = [], None
    with started_at(loaded, path.layers[0], unscaled) as replayed, last_position_only(loaded):
        for start in range(0, len(alphas), at_once):
            chunk = by_text[start : start + at_once]
            if len(chunk) < at_once:
                repeated = prefix.repeat(len(chunk))
            replayed.prefix = repeated
            value, gradients = _scaled_pass(loaded, path, texts, batch, objective, chunk)
            for of_layer, gradient in zip(found, gradients, strict=True):
                of_layer.add(gradient.double().reshape(len(chunk), len(texts), -1),
                             None if weights is None else weights[:, start : start + at_once])
            values.append(value)
        if ends:
            replayed.prefix = prefix.repeat(2)
            both = np.repeat([[0.0], [1.0]], len(texts), 1)
            known = by_prompt(_scaled_pass(loaded, path, texts, batch, objective, both, False)[0],
                              owners)
    at_nodes = by_prompt(np.concatenate(values), owners)
    return [
        NodeGradients(alphas, np.concatenate(of_layer.sums),
                      by_prompt(np.concatenate(of_layer.totals), owners), at_nodes,
                      of_layer.by_rule(owners), known)
        for of_layer in found
    ]


@dataclass
class _Summed:
    """The gradients of one layer, summed up pass by pass."""

    sums: list[Array] = field(default_factory=list)
    totals: list[Array] = field(default_factory=list)
    each: Tensor | None = None

    def add(self, gradients: Tensor, weights: Array | None) -> None:
        """``[nodes, texts, neurons]``, and weights of these nodes by every rule."""
        import torch

        self.sums.append(gradients.sum(1).cpu().numpy())
        self.totals.append(gradients.sum(2).cpu().numpy())
        if weights is not None:
            share = torch.einsum("ra,atn->rtn", torch.tensor(weights, device=gradients.device),
                                 gradients)
            self.each = share if self.each is None else self.each + share

    def by_rule(self, owners: NDArray[np.intp]) -> Array | None:
        """Weighted sums of every prompt, ``[rules, prompts, neurons]``."""
        return None if self.each is None else np.stack(
            [by_prompt(rule.T, owners).T for rule in self.each.cpu().numpy()])


def by_prompt(values: Array, owners: NDArray[np.intp]) -> Array:
    """Sum ``[…, rows]`` over the rows of each prompt: ``[…, prompts]``."""
    if (owners == np.arange(len(owners))).all():
        return values
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    return np.asarray(np.add.reduceat(values, starts, axis=1))


def _scaled_pass(
    loaded: Loaded,
    path: Path,
    texts: list[Row],
    batch: Batch,
    objective: Objective,
    alphas: Array,
    differentiate: bool = True,
) -> tuple[Array, tuple[Tensor, ...]]:
    """F ``[nodes, texts]`` at ``alphas`` of that shape, and its gradients.

    These are ``[nodes × texts, neurons]`` of every layer, by node, then by text.
    """
    import torch

    times = len(alphas)
    weight = next(loaded.model.parameters())
    alpha = torch.tensor(alphas.reshape(-1, 1), dtype=weight.dtype, device=weight.device)
    layers = [loaded.adapter.layers(loaded.model)[i].get_submodule(path.projection)
              for i in path.layers]
    scales = [_Scale(alpha, path) for _ in layers]
    handles = [layer.register_forward_hook(scale)
               for layer, scale in zip(layers, scales, strict=True)]
    try:
        with torch.set_grad_enabled(differentiate):
            logits = loaded.model(
                **batch.repeat(times).inputs(), use_cache=False, logits_to_keep=1
            ).logits[:, -1]
            value = objective.function(logits, [text.prompt for text in texts] * times)
            if objective.expand is not None:
                value = value * value.new_tensor([text.weight for text in texts] * times)
            gradients: tuple[Tensor, ...] = torch.autograd.grad(
                value.sum(), [scale.variable for scale in scales]) if differentiate else ()
    finally:
        for handle in handles:
            handle.remove()
    if path.released:
        gradients = tuple(gradient.clamp(min=0) for gradient in gradients)
    return value.detach().double().reshape(alphas.shape).cpu().numpy(), gradients


class _Scale:
    """Hook that scales the weight part of a projection's output, row by row of the batch.

    OPT's outputs have rows and positions in one dimension. ``variable``, ``[rows, neurons]``, is
    what gradients are taken with respect to: the scale, or what is added to the scaled value.
    """

    def __init__(self, alpha: Tensor, path: Path) -> None:
        self._alpha, self._path = alpha, path
        self.variable: Tensor

    def __call__(self, module: torch.nn.Module, _: object, output: Tensor) -> Tensor:
        import torch

        bias = getattr(module, "bias", None)
        by_row = output.reshape(len(self._alpha), -1, output.shape[-1])
        start = by_row.shape[1] - 1 if self._path.last_position else 0
        before, part = by_row[:, :start], by_row[:, start:]
        scale = self._alpha.to(output.device).repeat(1, output.shape[-1])
        added = torch.zeros_like(scale)
        self.variable = added if self._path.released else scale
        self.variable.requires_grad_(True)
        part = (part if bias is None else part - bias) * scale[:, None]
        if self._path.released:
            part = part + added[:, None]
        part = part if bias is None else part + bias
        scaled = torch.cat([before, part], 1) if start else part
        return scaled.reshape(output.shape)


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
        scale: what mean attributions were multiplied by to become scores.
    """

    scores: Array
    error: float
    totals: Array
    deltas: Array
    scale: float = 1.0

    @property
    def gaps(self) -> Array:
        """Completeness gap Σ_j IG_j − (F(1) − F(0)) of each prompt."""
        return self.totals - self.deltas


def layer_scores(
    blocks: Sequence[Sequence[NodeGradients]], level: int, released: bool = False
) -> LayerScores:
    """Reduce gradients to scores: ``blocks[b][i]`` holds what level ``i`` added for block b.

    Sums run over blocks in the order given, whoever computed them, so scores are bit-equal for
    any number of workers. The ``released`` scores of a layer are divided by their maximum.
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
    scores, rough, scale = fine @ total / prompts, coarse @ total / prompts, 1.0
    if released and (largest := float(scores.max())) > 0:
        scores, rough, scale = scores / largest, rough / largest, 1 / largest
    norm = float(np.linalg.norm(scores))
    error = float(np.linalg.norm(scores - rough)) / norm if norm > 0 else 0.0
    return LayerScores(scores, error, fine @ totals, values[-1] - values[0], scale)
