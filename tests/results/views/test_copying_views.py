"""The view on copying errors, on hand-made rows with known answers."""

from __future__ import annotations

import pytest
from results_folder import Folder, only


def test_copying_against_chance(folder: Folder) -> None:
    folder.intervention("ig", "integrated_gradients", "chosen")
    unit = {"answers": ["b", "c", "b"], "demonstrations": ["x", "y", "z"]}
    folder.answers("ig", "1c", **unit, gold="a", copied_position=2)
    folder.answers("ig", "c0", **unit, gold="d", copied_position=1, seed=1)
    folder.answers("ig", "1111", **unit, gold="b", seed=2)
    folder.write()
    row = only(folder, "FROM copying")
    assert (row["n"], row["accuracy"], row["copying_error"]) == (8, 0.625, 0.25)
    assert (row["prompts"], row["queries"]) == (8, 4)
    assert row["copy_share"] == pytest.approx(2 / 3)
    assert row["copied_last_share"] == 0.5
    # Gold answers: a 1/4, b 1/2, d 1/4. A wrong answer other than a (or than d) is b with
    # probability (1/2) / (3/4); c is never gold. Three answers are wrong.
    assert row["chance"] == pytest.approx(3 * (2 / 3) / 8)


def test_copying_without_errors_has_no_shares(folder: Folder) -> None:
    folder.intervention("ig", "integrated_gradients", "chosen")
    folder.answers("ig", "111")
    folder.write()
    row = only(folder, "FROM copying")
    assert (row["copy_share"], row["copied_last_share"], row["chance"]) == (None, None, 0.0)
