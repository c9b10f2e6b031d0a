"""A tiny random model of every family, with biases that are not zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_llama import CONTEXT
from transformers import AutoConfig, AutoModelForCausalLM

from prunelib.models import ModelInfo, describe
from prunelib.reference.corpus import vocabulary
from prunelib.reference.tokenizer import build_tokenizer

_LLAMA = {"hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2,
          "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32,
          "max_position_embeddings": CONTEXT, "initializer_range": 0.3}  # fmt: skip
_GEMMA = _LLAMA | {"initializer_range": 0.05, "query_pre_attn_scalar": 32, "sliding_window": 16,
                   "layer_types": ["sliding_attention", "full_attention"]}
#: Name → ``model_type`` and what its config has beyond the vocabulary.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _LLAMA),
    "llama, shared keys": ("llama", _LLAMA | {"num_attention_heads": 4}),
    "llama with bias": ("llama", _LLAMA | {"mlp_bias": True}),
    # A window that is shorter than the prompts.
    "mistral": ("mistral", _LLAMA | {"sliding_window": 4}),
    # transformers reads the tokenizer of every qwen2 as bytes, where ours has no blanks.
    "qwen2": ("qwen2", _LLAMA),
    "qwen3": ("qwen3", _LLAMA | {"num_attention_heads": 4}),
    "gemma": ("gemma", _LLAMA),
    "gemma2": ("gemma2", _GEMMA),
    "gemma3_text": ("gemma3_text", _GEMMA),
    "gpt2": ("gpt2", {"n_embd": 64, "n_inner": 48, "n_layer": 2, "n_head": 2,
                      "n_positions": CONTEXT, "initializer_range": 0.3}),
    "opt": ("opt", {"hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 48,
                    "num_hidden_layers": 2, "num_attention_heads": 2,
                    "max_position_embeddings": CONTEXT, "init_std": 0.3}),
    "opt, norm after": ("opt", {"hidden_size": 64, "word_embed_proj_dim": 32, "ffn_dim": 48,
                                "num_hidden_layers": 2, "num_attention_heads": 2,
                                "do_layer_norm_before": False,
                                "max_position_embeddings": CONTEXT, "init_std": 0.3}),
    "bloom": ("bloom", {"hidden_size": 64, "n_layer": 2, "n_head": 2, "initializer_range": 0.3}),
    "gpt_neox": ("gpt_neox", {"hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2,
                              "num_attention_heads": 2, "max_position_embeddings": CONTEXT,
                              "initializer_range": 0.3}),
    "mamba": ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4,
                        "initializer_range": 0.3}),
    "mamba2": ("mamba2", {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 16,
                          "num_heads": 8, "head_dim": 16, "n_groups": 1, "chunk_size": 16,
                          "initializer_range": 0.3}),
}  # fmt: skip


def build_family(name: str, folder: Path) -> ModelInfo:
    """Write a tiny random model of a family, and its tokenizer."""
    torch.manual_seed(0)
    kind, settings = FAMILIES[name]
    config = AutoConfig.for_model(kind, **settings, vocab_size=len(vocabulary()), pad_token_id=0,
                                  bos_token_id=1, eos_token_id=2)
    model = AutoModelForCausalLM.from_config(config)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("bias") and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return describe(str(folder))
