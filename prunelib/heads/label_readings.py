"""What in-context heads read at the demonstrations' labels (formulas.md §4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunelib.attribution.sampling import mean_error
from prunelib.components import Component
from prunelib.errors import UserError
from prunelib.heads.in_context import frozen_norm
from prunelib.heads.labelled import LABELLED_ROWS, Array, LabelledPrompt, batched
from prunelib.models import Loaded
from prunelib.models.head_access import LastAttention, final_norm, unembedding

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class LabelReadings:
    """What heads read at the labels, from the last position. All ``[prompts, heads, labels]``.

    Attributes:
        attention: probability of attending to the label.
        logit_minus: log p(first label | α·vo) - log p(second label | α·vo), in nats.
        value_minus: the same of vo alone, which does not depend on the attention.
        shown: 0 or 1, which of the two labels it is, ``[prompts, labels]``.
    """

    attention: Array
    logit_minus: Array
    value_minus: Array
    shown: NDArray[np.int64]

    def by_label(self, values: Array) -> Array:
        """Sums over the places of each label, ``[prompts, heads, 2]``."""
        return np.stack([(values * (self.shown == label)[:, None]).sum(2) for label in (0, 1)], 2)


def label_readings(
    loaded: Loaded,
    prompts: Sequence[LabelledPrompt],
    heads: Sequence[Component],
    rows: int = LABELLED_ROWS,
) -> LabelReadings:
    """Read heads at the labels of prompts that have equally many demonstrations.

    M_p = log p(foo | α_p·vo_p) - log p(bar | α_p·vo_p) with the weighted value-output vector of
    :meth:`~prunelib.models.head_access.LastAttention.weighted` and the final norm frozen as in
    :func:`~prunelib.heads.in_context.frozen_norm` (formulas.md §4.3). Of that norm only the gain is
    used: a LayerNorm's shift and mean belong to the whole stream, not to each part of it.

    Raises:
        UserError: prompts differ in the number of their demonstrations; the model has no heads or
            no final norm that can be frozen.
    """
    import torch

    if len({len(prompt.places) for prompt in prompts}) != 1:
        raise UserError("labels are read in prompts with equally many demonstrations")
    norm = final_norm(loaded)
    found: list[tuple[Array, ...]] = []
    for start in range(0, len(prompts), rows):
        some, last, final = prompts[start : start + rows], LastAttention(), _Entering(norm)
        batch = batched(loaded, some)
        with final, last.reading(loaded, {head.layer for head in heads}), torch.inference_mode():
            loaded.model(**batch.inputs(), use_cache=False, logits_to_keep=1)
            gain, _ = frozen_norm(norm, final.seen.to(loaded.device))
            found.append(_of_batch(loaded, some, heads, last, gain))
    attention, minus, value_minus = (np.concatenate(each) for each in zip(*found, strict=True))
    return LabelReadings(attention, minus, value_minus, np.array([p.shown for p in prompts]))


def _of_batch(loaded: Loaded, prompts: Sequence[LabelledPrompt], heads: Sequence[Component],
              last: LastAttention, gain: Tensor) -> tuple[Array, ...]:
    """Attention and both differences, ``[rows, heads, labels]`` each."""
    import torch

    # From the end, because shorter prompts are padded before their beginning.
    places = torch.tensor([[p - len(prompt.ids) for p in prompt.places] for prompt in prompts])
    row = torch.arange(len(prompts))[:, None]
    labels = torch.tensor([prompt.labels for prompt in prompts], device=gain.device)
    rows_of = unembedding(loaded).weight[labels]
    direction = (rows_of[:, 0] - rows_of[:, 1]) * gain
    attention, minus, value_minus = [], [], []
    for head in heads:
        # The softmax's denominator is the same for both labels: a difference of logits is enough.
        weighted, paid = (values[row, places].to(direction.device) for values in (
            last.weighted(loaded, head.layer, head.index),
            last.attention[head.layer][:, head.index]))
        difference = torch.einsum("rpw,rw->rp", weighted, direction)
        attention.append(paid)
        minus.append(difference)
        value_minus.append(difference / paid)
    return tuple(torch.stack(each, 1).double().cpu().numpy()
                 for each in (attention, minus, value_minus))


class _Entering:
    """What enters a module at the last position, ``[rows, width]``, within the context."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.seen: Tensor

    def __enter__(self) -> None:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            self.seen = args[0][:, -1]

        self._handle = self._module.register_forward_pre_hook(hook)

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


def compared(before: LabelReadings, after: LabelReadings, queries: Sequence[str]
             ) -> dict[str, tuple[Array, Array]]:
    """What the paper's argument rests on: what changes when the two labels change places.

    Args:
        before: readings of prompts.
        after: of the same prompts with the labels reversed (formulas.md §4.3).
        queries: what each prompt asks.

    Returns:
        Name → means over prompts and their standard errors by query, ``[heads, 2]`` each, of the
        sums at the places where a prompt shows the first, the second label: of every reading,
        before and ``_reversed``; and of ``attention`` and ``value_minus`` the relative
        ``_change`` of the mean: -0.3 is 30% less. nan where there is nothing that could change.
    """
    found: dict[str, tuple[Array, Array]] = {}
    for name in ("attention", "logit_minus", "value_minus"):
        old, new = (readings.by_label(getattr(readings, name)) for readings in (before, after))
        for suffix, values in (("", old), ("_reversed", new)):
            found[name + suffix] = values.mean(0), mean_error(values, queries)
        if name != "logit_minus":
            with np.errstate(invalid="ignore", divide="ignore"):
                change = new.sum(0) / old.sum(0) - 1
            found[f"{name}_change"] = (np.where(np.isfinite(change), change, np.nan),
                                       mean_error(new, queries, old))
    return found
