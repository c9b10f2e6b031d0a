"""The command line as a user types it, and a small recipe to give it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jobs import cli

DATA = Path(__file__).parent / "data"
#: A small recipe for ``{model}``.
GOOD = """
name: try
models: [{model}]
engine: transformers
attribution: {{prompts: 4, shots: 2, block: 2, max_nodes: 4}}
search: {{rates: [0.2], examples: 6, shots: 2}}
evaluate: {{tasks: [to_upper], shots: [1], examples: 4}}
"""


def call(*arguments: object) -> int:
    """Exit code of ``prunelib ARGUMENTS``."""
    sys.argv = ["prunelib", *map(str, arguments)]
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)
