"""Scorers beside integrated gradients: cheaper, or exact for one neuron at a time.

Each gives one score per neuron, the mean over prompts, for every layer asked for at once. What they
cost is stated as passes over the prompts; integrated gradients with n nodes cost n forward and
backward passes for each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from prunelib.attribution.integrated_gradients import ROWS, Array, Path, block_gradients
from prunelib.attribution.iterated_path import iterated_path_scores
from prunelib.attribution.objectives import Objective
from prunelib.attribution.prefix_replay import masked_rows
from prunelib.models import Loaded
from prunelib.models.adapter import output_dim
from prunelib.tasks.tokenization import Encoded, pad_left

if TYPE_CHECKING:
    from torch import Tensor, nn

#: From a model, the path (layers, projection), prompts, the objective and rows per batch to
#: scores ``[layers, neurons]``.
Scorer = Callable[[Loaded, Path, Sequence[Encoded], Objective, int], Array]


def gradient_activation(
    loaded: Loaded, path: Path, prompts: Sequence[Encoded], objective: Objective, rows: int = ROWS
) -> Array:
    """Σ over positions of activation × gradient, ``[layers, neurons]``.

    The integrand of integrated gradients at α = 1, so the first-order effect of a neuron on the
    model as it runs. One forward and backward pass for all layers.
    """
    total: Array | None = None
    for start in range(0, len(prompts), rows):
        some = prompts[start : start + rows]
        found = block_gradients(loaded, path, some, objective, np.ones(1), rows)
        sums = np.stack([part.sums[0] for part in found])
        total = sums if total is None else total + sums
    if total is None:
        raise ValueError("no prompts")
    return total / len(prompts)


def activation(
    loaded: Loaded, path: Path, prompts: Sequence[Encoded], objective: Objective, rows: int = ROWS
) -> Array:
    """Mean over prompts of the mean over positions of |value|, ``[layers, neurons]``.

    The value is that which a mask would set to zero. One forward pass; no labels.
    """
    return np.stack([values.abs().mean(0).numpy()
                     for values in _values(loaded, path, prompts, rows, _mean)])


def wanda(
    loaded: Loaded, path: Path, prompts: Sequence[Encoded], objective: Objective, rows: int = ROWS
) -> Array:
    """Σ over the weights of a neuron of |weight| × ‖what the weight multiplies‖₂.

    The score of Wanda (Sun et al. 2024, Eq. 1), added up over the weights that are lost with the
    neuron: those it feeds in the output projection, or those that feed it where neurons are
    outputs.
    The norm runs over all positions of all prompts. One forward pass; no labels.
    """
    inputs = [values.pow(2).sum(0).sqrt() for values in
              _values(loaded, path, prompts, rows, _norm, inputs=True)]
    scores = []
    for layer, norm in zip(path.layers, inputs, strict=True):
        projection = _switched(loaded, layer)
        weight = projection.weight.double().abs().cpu()
        weight = weight.T if output_dim(projection) else weight  # [outputs, inputs]
        scores.append((weight.sum(0) * norm if path.site == "mlp_hidden" else weight @ norm)
                      .numpy())
    return np.stack(scores)


def weight(
    loaded: Loaded, path: Path, prompts: Sequence[Encoded], objective: Objective, rows: int = ROWS
) -> Array:
    """‖weight row of the neuron in the scaled projection‖₂, ``[layers, neurons]``. No pass."""
    found = []
    for layer in path.layers:
        projection: Any = loaded.adapter.layers(loaded.model)[layer].get_submodule(path.projection)
        norms = projection.weight.double().norm(dim=1 - output_dim(projection))
        found.append(norms.cpu().numpy())
    return np.stack(found)


def single(
    loaded: Loaded, path: Path, prompts: Sequence[Encoded], objective: Objective, rows: int = ROWS
) -> Array:
    """F(model) − F(model without the neuron), each neuron alone, ``[layers, neurons]``.

    Integrated gradients along the path that scales one neuron and leaves all others: by the
    fundamental theorem the integral is this difference, so nothing is integrated. As many forward
    passes per layer as it has neurons. Where the projection has a bias, the neuron goes off whole.
    """
    return np.stack([_without_each(loaded, path, layer, prompts, objective, rows)
                     for layer in path.layers])


def iterated_path(
    loaded: Loaded, path: Path, prompts: Sequence[Encoded], objective: Objective, rows: int = ROWS
) -> Array:
    """Scores of :mod:`prunelib.attribution.iterated_path`, ``[layers, neurons]``."""
    return np.stack([iterated_path_scores(loaded, layer, prompts, objective)
                     for layer in path.layers])


#: Method name → scorer; ``single`` is the path of that name.
SCORERS: dict[str, Scorer] = {
    "iterated_path": iterated_path,
    "gradient_activation": gradient_activation,
    "activation": activation,
    "wanda": wanda,
    "weight": weight,
    "single": single,
}


def _switched(loaded: Loaded, layer: int) -> Any:
    return loaded.adapter.layers(loaded.model)[layer].get_submodule(loaded.adapter.switched)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values.abs() * mask).sum(1) / mask.sum(1)


def _norm(values: Tensor, mask: Tensor) -> Tensor:
    return (values.pow(2) * mask).sum(1).sqrt()


def _values(
    loaded: Loaded, path: Path, prompts: Sequence[Encoded], rows: int,
    reduce: Callable[[Tensor, Tensor], Tensor], inputs: bool = False,
) -> list[Tensor]:
    """What neurons hold, reduced over positions: per layer ``[prompts, neurons]``.

    ``inputs``: what enters the projection at which they are switched off, wherever neurons sit.
    """
    import torch

    enter = inputs or path.site == "mlp_hidden"
    found: list[list[Tensor]] = [[] for _ in path.layers]
    for start in range(0, len(prompts), rows):
        some = prompts[start : start + rows]
        batch = pad_left([p.prompt for p in some], loaded.tokenizer.pad_token_id, loaded.device)
        seen: dict[int, Tensor] = {}
        with torch.no_grad(), _recorded(loaded, path.layers, enter, seen):
            loaded.model(**batch.inputs(), use_cache=False, logits_to_keep=1)
        for part, layer in zip(found, path.layers, strict=True):
            # OPT's values have rows and positions in one dimension.
            values = seen[layer].reshape(len(some), -1, seen[layer].shape[-1]).double()
            part.append(reduce(values, batch.mask[:, :, None]).cpu())
    return [torch.cat(part) for part in found]


@contextmanager
def _recorded(
    loaded: Loaded, layers: Sequence[int], enter: bool, seen: dict[int, Tensor]
) -> Iterator[None]:
    """Within the context ``seen`` receives what enters (or leaves) each layer's projection."""

    def before(layer: int) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen[layer] = args[0]
        return hook

    def after(layer: int) -> Any:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            seen[layer] = output
        return hook

    handles = [_switched(loaded, layer).register_forward_pre_hook(before(layer)) if enter
               else _switched(loaded, layer).register_forward_hook(after(layer))
               for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _without_each(
    loaded: Loaded, path: Path, layer: int, prompts: Sequence[Encoded], objective: Objective,
    rows: int,
) -> Array:
    """F(all on) − F(one off), mean over prompts, for each neuron of one layer: ``[neurons]``."""
    import torch

    texts = objective.rows(prompts)
    neurons = loaded.info.components(path.site)
    batch = pad_left([t.prompt.prompt for t in texts], loaded.tokenizer.pad_token_id,
                     loaded.device)
    weights = torch.tensor([text.weight for text in texts], device=loaded.device)
    dtype = next(loaded.model.parameters()).dtype
    keep = torch.ones(neurons + 1, neurons, dtype=dtype, device=loaded.device)
    keep[range(neurons), range(neurons)] = 0  # the last row leaves everything on
    at_once = max(1, rows // len(texts))
    values: list[Tensor] = []
    with masked_rows(loaded, layer, path.site, batch) as logits, torch.no_grad():
        for start in range(0, len(keep), at_once):
            some = keep[start : start + at_once]
            value = objective.function(logits(some), [t.prompt for t in texts] * len(some))
            values.append((value.reshape(len(some), -1) * weights).double().sum(1))
    total = torch.cat(values).cpu().numpy() / len(prompts)
    return np.asarray(total[-1] - total[:-1])
