"""Llama and the families that share its gated MLP: Mistral, Qwen2, Qwen3, the first Gemma."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelib.models.adapter import Adapter
from prunelib.models.head_layout import Heads

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def _not_in_vllm(config: PreTrainedConfig) -> str | None:
    kinds = set(getattr(config, "layer_types", None) or ())
    if config.model_type in ("qwen2", "qwen3") and len(kinds) > 1:
        return f"vllm does not run a '{config.model_type}' with a sliding window in some layers"
    return None


#: Neurons are the outputs of ``gate_proj``; they enter ``down_proj`` (formulas.md §1.4).
LLAMA = Adapter(
    model_types=("llama", "mistral", "qwen2", "qwen3", "gemma"),
    stack="model.layers",
    hidden=("mlp.gate_proj", "mlp.up_proj"),
    switched="mlp.down_proj",
    width=lambda config: int(config.intermediate_size),
    bias=lambda config: bool(getattr(config, "mlp_bias", False)),
    attention="self_attn",
    mlp_norm="post_attention_layernorm",
    heads=Heads("self_attn.o_proj", "self_attn.v_proj", "own", "rotary"),
    final_norm="model.norm",
    not_in_vllm=_not_in_vllm,
)

ADAPTERS = (LLAMA,)
