"""Gates: a factor on every neuron of one layer, and how an objective changes with them.

A gate multiplies a neuron where the neuron is switched off, at every position of a prompt: 1 is the
model's normal operation, 0 is the neuron switched off. Scorers that stay near normal operation are
built on the gradient with respect to the gates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunelib.attribution.objectives.base import Objective
from prunelib.attribution.prefix_replay import Prefix, clean_prefix, last_position_only, started_at
from prunelib.interventions.ablation import ActivationMasks
from prunelib.models import Loaded
from prunelib.tasks.tokenization import Batch, Encoded, pad_left

if TYPE_CHECKING:
    from torch import Tensor

#: Prompts of one forward and backward pass. Fixed, not fitted to the machine: the rounding of a
#: batch depends on its shape, and scores must not depend on the worker.
GATE_ROWS = 50

Array = NDArray[np.float64]
#: From gates ``[neurons]``, or ``[prompts, neurons]``, to the objective's mean over prompts and the
#: mean of its gradient with respect to the gates, ``[neurons]``.
Gradient = Callable[[Array], tuple[float, Array]]


@contextlib.contextmanager
def gated(
    loaded: Loaded, layer: int, prompts: Sequence[Encoded], objective: Objective
) -> Iterator[Gradient]:
    """Within the context the function that it yields evaluates gates of one layer.

    What lies below the gates is computed once. One evaluation costs one forward and one backward
    pass of every prompt through what lies above.
    """
    blocks = []
    for start in range(0, len(prompts), GATE_ROWS):
        block = prompts[start : start + GATE_ROWS]
        batch = pad_left([p.prompt for p in block], loaded.device)
        blocks.append((block, batch, clean_prefix(loaded, batch, layer, loaded.adapter.unscaled)))

    with (ActivationMasks(loaded) as masks, last_position_only(loaded),
          started_at(loaded, layer, loaded.adapter.unscaled) as replayed):

        def one(gates: Array, block: Sequence[Encoded], batch: Batch, prefix: Prefix
                ) -> tuple[Tensor, Tensor]:
            import torch

            weight = next(loaded.model.parameters())
            rows = torch.tensor(gates, dtype=weight.dtype, device=weight.device)
            rows.requires_grad_(True)
            masks.set_rows(layer, rows, loaded.adapter.site)
            replayed.prefix = prefix
            with torch.enable_grad():
                logits = loaded.model(**batch.inputs(), use_cache=False, logits_to_keep=1).logits
                value = objective.function(logits[:, -1], block)
                (gradient,) = torch.autograd.grad(value.sum(), rows)
            return value.detach().double().sum(), gradient.double().sum(0)

        def evaluate(gates: Array) -> tuple[float, Array]:
            value, gradient = 0.0, np.zeros(loaded.info.width)
            rows = np.broadcast_to(gates, (len(prompts), loaded.info.width))
            for i, parts in enumerate(blocks):
                some, slope = one(rows[i * GATE_ROWS : (i + 1) * GATE_ROWS], *parts)
                value += float(some)
                gradient += slope.cpu().numpy()
            return value / len(prompts), gradient / len(prompts)

        yield evaluate
