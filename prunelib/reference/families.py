"""Untrained models of every family that the training recipe knows, all of about the same size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunelib.reference.corpus import vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Longest sequence that the models of a family with learned positions can read.
CONTEXT = 512


@dataclass(frozen=True)
class TrainingRecipe:
    """All that determines a base reference model."""

    width: int = 192
    layers: int = 4
    heads: int = 6
    hidden: int = 576
    steps: int = 4400
    rows: int = 64
    length: int = 112
    demonstrations: int = 10
    associations: float = 0.3
    learning_rate: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.01
    seed: int = 0
    #: Steps after which the young checkpoint is kept, in the middle of the schedule.
    young_step: int = 600


def _llama(recipe: TrainingRecipe) -> dict[str, Any]:
    return {"model_type": "llama", "hidden_size": recipe.width, "intermediate_size": recipe.hidden,
            "num_hidden_layers": recipe.layers, "num_attention_heads": recipe.heads,
            "num_key_value_heads": recipe.heads, "max_position_embeddings": CONTEXT}


def _gpt2(recipe: TrainingRecipe) -> dict[str, Any]:
    return {"model_type": "gpt2", "n_embd": recipe.width, "n_inner": _ungated(recipe),
            "n_layer": recipe.layers, "n_head": recipe.heads, "n_positions": CONTEXT,
            "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


def _opt(recipe: TrainingRecipe) -> dict[str, Any]:
    return {"model_type": "opt", "hidden_size": recipe.width, "word_embed_proj_dim": recipe.width,
            "ffn_dim": _ungated(recipe), "num_hidden_layers": recipe.layers,
            "num_attention_heads": recipe.heads, "max_position_embeddings": CONTEXT,
            "dropout": 0.0}


def _bloom(recipe: TrainingRecipe) -> dict[str, Any]:
    # The width of a BLOOM's MLP is four times that of its stream, whatever the recipe says.
    return {"model_type": "bloom", "hidden_size": recipe.width, "n_layer": recipe.layers,
            "n_head": recipe.heads, "hidden_dropout": 0.0, "attention_dropout": 0.0}


def _mamba(recipe: TrainingRecipe) -> dict[str, Any]:
    # Wide instead of deep or expanded: on a CPU the scan over states, not the weights, takes time.
    return {"model_type": "mamba", "hidden_size": 2 * recipe.width, "expand": 1, "state_size": 4,
            "num_hidden_layers": recipe.layers}


def _ungated(recipe: TrainingRecipe) -> int:
    """Hidden neurons of an MLP without gate that has as many weights as the recipe's gated one."""
    return 3 * recipe.hidden // 2


FAMILIES: dict[str, Callable[[TrainingRecipe], dict[str, Any]]] = {
    "llama": _llama, "gpt2": _gpt2, "opt": _opt, "bloom": _bloom, "mamba": _mamba,
}  # fmt: skip


def new_model(family: str, recipe: TrainingRecipe) -> PreTrainedModel:
    """An untrained model of a family in the recipe's shape (seeded)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(recipe.seed)
    config = AutoConfig.for_model(
        **FAMILIES[family](recipe), vocab_size=len(vocabulary()), tie_word_embeddings=True,
        pad_token_id=0, bos_token_id=1, eos_token_id=2)
    make: Any = AutoModelForCausalLM.from_config
    model: PreTrainedModel = make(config)
    return model
