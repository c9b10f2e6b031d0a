"""OPT. Its MLP sees batch and positions as one dimension, so it always runs on all positions."""

from __future__ import annotations

from prunelib.models.adapter import Adapter
from prunelib.models.head_layout import Heads

OPT = Adapter(
    model_types=("opt",),
    stack="model.decoder.layers",
    hidden=("fc1",),
    switched="fc2",
    width=lambda config: int(config.ffn_dim),
    bias=lambda config: bool(config.enable_bias),
    attention="self_attn",
    heads=Heads("self_attn.out_proj", "self_attn.v_proj", "own", "learned"),
    final_norm="model.decoder.final_layer_norm",
)

ADAPTERS = (OPT,)
