"""Objectives: the scalar of the logits that attribution differentiates. One file each."""
