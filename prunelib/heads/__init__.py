"""Attention heads and whole FFNs: importance, induction, in-context heads."""
