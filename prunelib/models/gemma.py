"""Gemma 2 and the text models of Gemma 3: a Llama with norms on both sides of its MLP."""

from __future__ import annotations

from dataclasses import replace

from prunelib.models.llama import LLAMA

#: A norm also stands between its attention and the stream.
GEMMA = replace(LLAMA, model_types=("gemma2", "gemma3_text"), mlp_norm="pre_feedforward_layernorm",
                final_norm=None)

ADAPTERS = (GEMMA,)
