"""Interventions: what is done to a model, one file a kind, and what is written to a checkpoint."""
