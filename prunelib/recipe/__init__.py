"""What a user writes: the sections of a recipe, and how it is read."""
