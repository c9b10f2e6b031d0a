"""Interventions: what is done to a model, one file a kind, and what is written to a checkpoint."""

from prunelib.interventions.files import apply

__all__ = ["apply"]
