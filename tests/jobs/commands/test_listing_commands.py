"""``prunelib tasks``, ``models`` and ``tables`` as a user types them."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import call


def test_what_is_available(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("tasks") == 0
    said = capfd.readouterr().out
    assert "vowel_counting" in said and "suite capability" in said
    for name in ("xnli_sw", "sst5", "cais/mmlu", "xcopa_zh"):
        assert name in said
    assert call("models") == 0
    assert "reference/llama-copier" in capfd.readouterr().out
    assert call("tables", "--results", finished) == 0
    said = capfd.readouterr().out
    assert "leaderboard (view" in said and "copying_error" in said
    assert call("tables", "leaderbord") == 2
    assert "did you mean leaderboard" in capfd.readouterr().err
