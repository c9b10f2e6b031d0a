"""Llama and the families that share its gated MLP: Mistral, Qwen2, Qwen3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel


class LlamaAdapter:
    """Neurons are output units of ``gate_proj``; they enter ``down_proj`` (papers.md §1.4)."""

    model_types = ("llama", "mistral", "qwen2", "qwen3")
    output_projection = "mlp.down_proj"
    mlp_norm = "post_attention_layernorm"
    unscaled = ("self_attn", "mlp.gate_proj", "mlp.up_proj")

    def depth(self, config: PreTrainedConfig) -> int:
        return int(config.num_hidden_layers)

    def width(self, config: PreTrainedConfig) -> int:
        return int(config.intermediate_size)

    def layers(self, model: PreTrainedModel) -> nn.ModuleList:
        return cast("nn.ModuleList", cast("Any", model).get_decoder().layers)

    def set_layers(self, model: PreTrainedModel, layers: nn.ModuleList) -> None:
        cast("Any", model).get_decoder().layers = layers

    def scaled_projection(self, model: PreTrainedModel, layer: int) -> nn.Module:
        return self.layers(model)[layer].get_submodule("mlp.gate_proj")
