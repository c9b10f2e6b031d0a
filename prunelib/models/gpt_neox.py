"""GPT-NeoX, the architecture of Pythia: attention and MLP read the same stream."""

from __future__ import annotations

from prunelib.models.adapter import Adapter
from prunelib.models.head_layout import Heads

GPT_NEOX = Adapter(
    model_types=("gpt_neox",),
    stack="gpt_neox.layers",
    hidden=("mlp.dense_h_to_4h",),
    switched="mlp.dense_4h_to_h",
    width=lambda config: int(config.intermediate_size),
    bias=lambda _: True,
    attention="attention",
    mlp_norm="post_attention_layernorm",
    heads=Heads("attention.dense", "attention.query_key_value", "interleaved", "rotary"),
    final_norm="gpt_neox.final_layer_norm",
    not_in_vllm=lambda _: "vllm has no implementation of 'gpt_neox'",
)

ADAPTERS = (GPT_NEOX,)
