"""Attention heads: how important they are and what they do."""
