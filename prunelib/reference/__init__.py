"""Reference models: their training, planted neurons, and the weights that ship."""
