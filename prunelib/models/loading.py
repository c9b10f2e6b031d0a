"""Loading a model into transformers: safetensors only, its own code only where it is trusted."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunelib.models.adapter import Adapter
from prunelib.models.identity import ModelInfo
from prunelib.models.registry import adapter_for

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Loaded:
    """A model in memory, with its tokenizer and adapter."""

    info: ModelInfo
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    adapter: Adapter

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device


@functools.cache
def load_tokenizer(info: ModelInfo) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, read once per process."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        info.path, trust_remote_code=info.trust_remote_code
    )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load(info: ModelInfo, dtype: str = "float32") -> Loaded:
    """Load a model for attribution or evaluation, frozen, on the GPU if there is one."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(
        info.path,
        dtype=getattr(torch, dtype),
        use_safetensors=True,
        trust_remote_code=info.trust_remote_code,
    )
    # A checkpoint may bring a repetition penalty or other stop ids: greedy means greedy.
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    placed: Any = model
    placed.to("cuda" if torch.cuda.is_available() else "cpu").eval().requires_grad_(False)
    return Loaded(info, model, load_tokenizer(info), adapter_for(info.model_type))
