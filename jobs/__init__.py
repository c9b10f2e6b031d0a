"""What a user starts: the command line and the entry points of Ray jobs."""
