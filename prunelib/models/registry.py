"""Which adapter serves which architecture. A new family is one file and one line here."""

from __future__ import annotations

from prunelib.errors import UserError
from prunelib.models.adapter import Adapter
from prunelib.models.bloom import BLOOM
from prunelib.models.gemma import GEMMA
from prunelib.models.gpt2 import GPT2
from prunelib.models.gpt_neox import GPT_NEOX
from prunelib.models.llama import LLAMA
from prunelib.models.mamba import MAMBA, MAMBA2
from prunelib.models.opt import OPT

ADAPTERS: tuple[Adapter, ...] = (LLAMA, GEMMA, GPT2, OPT, BLOOM, GPT_NEOX, MAMBA, MAMBA2)


def adapter_for(model_type: str) -> Adapter:
    """The adapter of a ``model_type``; :class:`UserError` if the family is not supported."""
    for adapter in ADAPTERS:
        if model_type in adapter.model_types:
            return adapter
    known = ", ".join(sorted(t for a in ADAPTERS for t in a.model_types))
    raise UserError(f"architecture '{model_type}' is not supported; supported: {known}")
