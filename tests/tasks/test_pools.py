"""Pairs of a split by input and answer are looked up once, however many prompts are drawn."""

from __future__ import annotations

import pytest

from prunelib.tasks import draw, get_task
from prunelib.tasks.base import Pool


def test_a_pool_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, make = [], Pool.of

    def counted(*given: object) -> Pool:
        made.append(given)
        return make(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(Pool, "of", counted)
    task = get_task("antonyms")
    vars(task).pop("_pools", None)
    draw(task, split="report", shots=3, seed=0, count=20)
    assert len(made) == 1
