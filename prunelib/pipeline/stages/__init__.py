"""What a recipe can ask for: one file a study or stage."""
