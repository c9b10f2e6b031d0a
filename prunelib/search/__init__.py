"""Search: which layer and which rate to switch off, on a proxy."""
