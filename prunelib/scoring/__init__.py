"""Correctness, copying, statistics."""
