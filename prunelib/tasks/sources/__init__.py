"""Where tasks come from: a source is one file here and one line in the registry."""
