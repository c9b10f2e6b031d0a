"""Units of work, and who does them."""
