"""The command line as a user types it."""

from __future__ import annotations

import sys

import pytest

from jobs import cli


def call(*arguments: object) -> int:
    """Exit code of ``prunelib ARGUMENTS``."""
    sys.argv = ["prunelib", *map(str, arguments)]
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)
