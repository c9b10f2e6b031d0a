"""GPT-2, whose projections are Conv1D modules: their neurons are columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelib.models.adapter import Adapter
from prunelib.models.head_layout import Heads

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def _not_in_vllm(config: PreTrainedConfig) -> str | None:
    """What vLLM refuses or, in the first case, does not read."""
    if not getattr(config, "scale_attn_weights", True):
        return "vllm scales attention, and config.json says scale_attn_weights: false"
    for name in ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"):
        if getattr(config, name, False):
            return f"vllm does not know {name}: true of its config.json"
    return None


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
    not_in_vllm=_not_in_vllm,
)

ADAPTERS = (GPT2,)
