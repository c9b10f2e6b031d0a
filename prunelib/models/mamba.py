"""Mamba and Mamba-2: neurons are the outputs of a mixer's ``in_proj`` (formulas.md §1.4).

There is no MLP: what a neuron does reaches later positions through the layer's own state, so
neither the layer's modules nor its positions can be spared in replay.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from prunelib.models.adapter import Adapter
from prunelib.models.mamba_scan import linear_scan

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def _refusal(config: PreTrainedConfig) -> str | None:
    if config.use_bias:
        # The bias of in_proj reaches the convolution at padded positions too.
        return "its mixers have biases (use_bias), with which padding changes the answer"
    return None


def _mamba2_width(config: PreTrainedConfig) -> int:
    inner = int(config.expand * config.hidden_size)
    return 2 * inner + 2 * int(config.n_groups * config.state_size) + int(config.num_heads)


MAMBA = Adapter(
    model_types=("mamba",),
    stack="backbone.layers",
    hidden=("mixer.in_proj",),
    switched="mixer.in_proj",
    width=lambda config: 2 * int(config.intermediate_size),
    site="mixer_in",
    refusal=_refusal,
    vllm_needs_gpu=True,
    cpu_gradients=linear_scan,
)
MAMBA2 = replace(MAMBA, model_types=("mamba2",), width=_mamba2_width, vllm_needs_gpu=False,
                 cpu_gradients=nullcontext)

ADAPTERS = (MAMBA, MAMBA2)
