"""``prunelib digest`` as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import call


def test_of_a_real_run_as_a_user_types_it(
    finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("digest", "--results", finished) == 0
    text = capfd.readouterr().out
    assert text.startswith("1 run since ") and "small-" in text and ": done at " in text
    assert call("digest", "--results", finished, "--since", "overnight") == 2
    assert "12h" in capfd.readouterr().err
