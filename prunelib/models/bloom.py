"""BLOOM: positions are ALiBi biases, and layers return tuples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelib.models.adapter import Adapter
from prunelib.models.head_layout import Heads

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def _refusal(config: PreTrainedConfig) -> str | None:
    if config.slow_but_exact and config.pretraining_tp > 1:
        # That path multiplies by slices of the weight, past every hook.
        return "slow_but_exact is set in its config.json; set it to false"
    return None


BLOOM = Adapter(
    model_types=("bloom",),
    stack="transformer.h",
    hidden=("mlp.dense_h_to_4h",),
    switched="mlp.dense_4h_to_h",
    width=lambda config: 4 * int(config.hidden_size),
    bias=lambda _: True,
    attention="self_attention",
    mlp_norm="post_attention_layernorm",
    tuples=True,
    heads=Heads("self_attention.dense", "self_attention.query_key_value", "interleaved",
                "alibi"),
    final_norm="transformer.ln_f",
    refusal=_refusal,
    # Up to 1e-3 in the log-probabilities of a tiny model: more than a canary allows.
    not_in_vllm=lambda _: "vllm computes another GELU in a 'bloom' (erf) than it was trained with "
                          "(tanh)",
)

ADAPTERS = (BLOOM,)
