"""Engines: what completes prompts under an ablation that is switched in place."""
