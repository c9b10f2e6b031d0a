"""Running a recipe: the driver, plans and progress, the stages, and units of work."""
