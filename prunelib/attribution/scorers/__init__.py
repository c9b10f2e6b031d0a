"""Ways to score neurons beside integrated gradients: one file each."""
