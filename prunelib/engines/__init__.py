"""Engines: what completes prompts under an intervention that is switched in place."""
