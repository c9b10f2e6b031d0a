"""A model's shapes by its ``config.json`` alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def shapes(folder: Path, own_code: bool = False) -> PreTrainedModel:
    """The model without weights: all of its tensors are on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=own_code)
    kind: Any = AutoModelForCausalLM
    with torch.device("meta"):
        model: PreTrainedModel = kind.from_config(config, trust_remote_code=own_code)
    return model


def elements(module: nn.Module) -> int:
    """How many numbers its parameters are, tied ones once."""
    return sum(parameter.numel() for parameter in module.parameters())
