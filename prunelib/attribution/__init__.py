"""Scores of components: objectives, quadrature, integrated gradients."""
