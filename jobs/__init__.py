"""What a user starts: the command line and the entry points of Ray jobs."""

import os

# What is shown here is prunelib's own; tqdm reads this when it is imported.
os.environ.setdefault("TQDM_DISABLE", "1")
