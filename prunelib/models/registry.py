"""Which adapter serves which architecture. A new family is one file and one line here."""

from __future__ import annotations

from importlib import import_module

from prunelib.errors import UserError
from prunelib.models.adapter import Adapter

#: The families: modules of this package, each with its ``ADAPTERS``.
FAMILIES = (
    "llama",
    "gemma",
    "gpt2",
    "opt",
    "bloom",
    "gpt_neox",
    "mamba",
)

ADAPTERS: tuple[Adapter, ...] = tuple(
    adapter for family in FAMILIES
    for adapter in import_module(f"prunelib.models.{family}").ADAPTERS)


def adapter_for(model_type: str) -> Adapter:
    """The adapter of a ``model_type``; :class:`UserError` if the family is not supported."""
    for adapter in ADAPTERS:
        if model_type in adapter.model_types:
            return adapter
    known = ", ".join(sorted(t for a in ADAPTERS for t in a.model_types))
    raise UserError(f"architecture '{model_type}' is not supported; supported: {known}")
