"""What the page on rules of choice says holds in a small simulation."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from benchmarks.choice_rules import LAYERS, RATES, STEP, searched, simulated, world


def test_simulated_cells_have_their_true_accuracy() -> None:
    rng = np.random.default_rng(0)
    truth = world("BoolQ", rng)
    assert truth.untouched == 0.7519
    assert truth.cells[truth.layer].max() == pytest.approx(0.7519 + 0.0713)
    assert truth.cells.shape == (LAYERS, len(RATES))
    cells, untouched = searched(truth, 4000, rng)
    assert untouched.correct.mean() == pytest.approx(truth.untouched, abs=0.03)
    found = np.array([cell.correct.mean() for cell in cells]).reshape(truth.cells.shape)
    assert np.abs(found - truth.cells).max() < 0.04
    # the rates of one layer are a chain from the untouched model
    steps = [untouched.margin, *(cell.margin for cell in cells[: len(RATES)])]
    for before, after in pairwise(steps):
        assert np.corrcoef(before, after)[0, 1] == pytest.approx(STEP, abs=0.01)


def test_margins_break_ties_better_than_layers_do() -> None:
    rules = {row["rule"]: row for row in simulated("SST2", 10, 60)}
    assert rules["best"]["layer"] > rules["best, ties by rate and layer"]["layer"] + 0.1
    assert rules["best"]["gain"] > rules["best, ties by rate and layer"]["gain"] + 0.3


def test_best_finds_more_and_the_smallest_rate_loses_less() -> None:
    gaining = {row["rule"]: row["gain"] for row in simulated("BoolQ", 100, 40)}
    assert gaining["best"] > gaining["smallest within error"] > 3
    losing = {row["rule"]: row for row in simulated("no gain", 100, 40)}
    assert losing["best"]["gain"] < losing["smallest within error"]["gain"] < 0
    assert (losing["best or nothing"]["nothing"]
            < losing["smallest within error or nothing"]["nothing"] < 0.5)
    assert losing["best"]["nothing"] == 0
