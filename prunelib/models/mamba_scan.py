"""Mamba's selective scan on a CPU, with a gradient at a cost linear in the length.

Without its GPU kernels transformers loops over positions, and autograd through that loop writes a
gradient of the whole sequence at every one of them: minutes a training step. The same recurrence
with its gradient written out takes seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@contextlib.contextmanager
def linear_scan() -> Iterator[None]:
    """Within the context every Mamba of transformers uses the scan of this module."""
    from transformers.models.mamba import modeling_mamba

    slow = modeling_mamba.mamba_selective_scan
    modeling_mamba.mamba_selective_scan = _selective_scan
    try:
        yield
    finally:
        modeling_mamba.mamba_selective_scan = slow


def _selective_scan(
    hidden: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *, D: Tensor, z: Tensor,
    delta_bias: Tensor, return_last_state: bool, **_: object,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """What ``mamba_selective_scan`` of transformers computes; the names are its own.

    ``hidden``, ``dt`` and ``z`` are ``[rows, channels, length]``, ``A`` is ``[channels, states]``,
    ``B`` and ``C`` are ``[rows, states, length]``, ``D`` and ``delta_bias`` are ``[channels]``.
    """
    import torch
    from torch.nn import functional

    # In float64 what transformers rounds is rounded here too, and nothing else.
    wide = torch.promote_types(dt.dtype, torch.float32)
    step = functional.softplus(dt.to(wide) + delta_bias[:, None]).permute(2, 0, 1)
    decay = (step[..., None] * A.to(wide)).exp()
    entering = (step * hidden.float().permute(2, 0, 1))[..., None]
    states = _recurrence(decay, entering * B.float().permute(2, 0, 1)[:, :, None, :])
    read = (states @ C.to(wide).permute(2, 0, 1)[..., None]).squeeze(-1).permute(1, 2, 0)
    output = (read + hidden * D[:, None]) * functional.silu(z)
    return (output, states[-1]) if return_last_state else output


def _recurrence(decay: Tensor, entering: Tensor) -> Tensor:
    """States ``s[t] = decay[t] · s[t-1] + entering[t]``, the first dimension being time."""
    import torch

    class Recurrence(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, decay: Tensor, entering: Tensor) -> Tensor:
            states = entering.clone()
            for t in range(1, len(states)):
                states[t].addcmul_(decay[t], states[t - 1])
            ctx.save_for_backward(decay, states)
            return states

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
            decay, states = ctx.saved_tensors
            entering = gradients[0].clone()
            for t in range(len(states) - 2, -1, -1):
                entering[t].addcmul_(decay[t + 1], entering[t + 1])
            of_decay = torch.zeros_like(decay)
            torch.mul(entering[1:], states[:-1], out=of_decay[1:])
            return of_decay, entering

    found: Tensor = Recurrence.apply(decay, entering)  # type: ignore[no-untyped-call]
    return found
