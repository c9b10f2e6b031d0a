"""GPT-2, whose projections are Conv1D modules: their neurons are columns."""

from __future__ import annotations

from prunelib.models.adapter import Adapter
from prunelib.models.head_layout import Heads

GPT2 = Adapter(
    model_types=("gpt2",),
    stack="transformer.h",
    hidden=("mlp.c_fc",),
    switched="mlp.c_proj",
    width=lambda config: int(config.n_inner or 4 * config.hidden_size),
    bias=lambda _: True,
    attention="attn",
    mlp_norm="ln_2",
    heads=Heads("attn.c_proj", "attn.c_attn", "thirds", "learned"),
    final_norm="transformer.ln_f",
)

ADAPTERS = (GPT2,)
