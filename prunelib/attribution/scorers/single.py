"""Each neuron switched off alone: exact, at a forward pass a neuron."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from prunelib.attribution.integrated_gradients import PATH_ROWS, Array, Path, by_prompt
from prunelib.attribution.objectives.base import Objective
from prunelib.attribution.prefix_replay import masked_rows
from prunelib.models import Loaded
from prunelib.tasks.tokenization import Encoded, pad_left

if TYPE_CHECKING:
    from torch import Tensor


def single(
    loaded: Loaded, path: Path, prompts: Sequence[Encoded], objective: Objective,
    rows: int = PATH_ROWS,
) -> Array:
    """F(model) − F(model without the neuron) of each prompt: ``[layers, prompts, neurons]``.

    Integrated gradients along the path that scales one neuron and leaves all others: by the
    fundamental theorem the integral is this difference, so nothing is integrated. As many forward
    passes per layer as it has neurons. Where the projection has a bias, the neuron goes off whole.
    """
    return np.stack([_without_each(loaded, path, layer, prompts, objective, rows)
                     for layer in path.layers])


def _without_each(
    loaded: Loaded, path: Path, layer: int, prompts: Sequence[Encoded], objective: Objective,
    rows: int,
) -> Array:
    """F(all on) − F(one off), for each neuron of one layer: ``[prompts, neurons]``."""
    import torch

    texts = objective.rows(prompts)
    neurons = loaded.info.components(path.site)
    batch = pad_left([t.prompt.prompt for t in texts], loaded.device)
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
            values.append((value.reshape(len(some), -1) * weights).double())
    owners = np.array([text.owner for text in texts])
    of_prompts = by_prompt(torch.cat(values).cpu().numpy(), owners)
    return np.asarray(of_prompts[-1] - of_prompts[:-1]).T
