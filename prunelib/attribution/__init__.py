"""Scores of components: objectives, integrated gradients, other scorers, token attribution."""
