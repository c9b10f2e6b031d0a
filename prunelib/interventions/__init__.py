"""Interventions on transformers modules."""
