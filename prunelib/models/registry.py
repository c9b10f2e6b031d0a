"""Which adapter serves which architecture. A new family is one file and one line here."""

from __future__ import annotations

from prunelib.errors import UserError
from prunelib.models.adapter import Adapter
from prunelib.models.llama import LlamaAdapter

ADAPTERS: tuple[Adapter, ...] = (LlamaAdapter(),)


def adapter_for(model_type: str) -> Adapter:
    """The adapter of a ``model_type``; :class:`UserError` if the family is not supported."""
    for adapter in ADAPTERS:
        if model_type in adapter.model_types:
            return adapter
    known = ", ".join(sorted(t for a in ADAPTERS for t in a.model_types))
    raise UserError(f"architecture '{model_type}' is not supported; supported: {known}")
