"""Recipe → plan → units → stages, and the executors' protocol."""
