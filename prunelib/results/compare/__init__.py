"""Two runs, or two models, side by side: what differs in how they were made, and in answers."""
