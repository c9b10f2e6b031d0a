"""Interventions: what is done to a model, one file a kind, and what is written to a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunelib.interventions.files import apply

__all__ = ["apply"]


def __getattr__(name: str) -> Any:
    if name == "apply":  # imported when it is asked for: it brings in models and recipes
        from prunelib.interventions.files import apply

        return apply
    raise AttributeError(f"module 'prunelib.interventions' has no attribute '{name}'")
