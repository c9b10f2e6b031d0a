from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prunelib.interventions.ablation import Ablation
from prunelib.search.choice import Cell, choose


def cell(layer: int, rate: float, right: int, copied: int = 0, of: int = 100) -> Cell:
    correct = np.arange(of) < right
    wrong_copy = (np.arange(of) >= right) & (np.arange(of) < right + copied)
    return Cell(layer, rate, Ablation.of_layer(layer, range(int(rate * 100))), correct, wrong_copy)


def test_accuracy_comes_first() -> None:
    assert choose([cell(0, 0.1, 60), cell(1, 0.4, 90), cell(2, 0.2, 70)]).layer == 1


def test_then_copying_error_then_the_smallest_rate() -> None:
    assert choose([cell(0, 0.1, 90, copied=5), cell(1, 0.4, 90, copied=1)]).layer == 1
    assert choose([cell(0, 0.2, 90), cell(1, 0.1, 90)]).layer == 1


def test_a_smaller_rate_within_one_paired_standard_error_wins() -> None:
    # two of 100 answers lost, one gained: difference 0.01, its standard error 0.017
    best, near = cell(0, 0.4, 90), cell(0, 0.1, 88)
    near.correct[99] = True
    assert choose([near, best]).rate == 0.1
    # four lost: difference 0.04, standard error 0.0197
    assert choose([cell(0, 0.1, 86), cell(0, 0.4, 90)]).rate == 0.4


def test_the_error_is_paired() -> None:
    best = cell(0, 0.4, 50)
    shifted = Cell(0, 0.1, Ablation.of_layer(0, [1]), ~best.correct, best.copied)
    better = Cell(0, 0.4, best.ablation, best.correct | (np.arange(100) == 99), best.copied)
    # as accurate within any unpaired error, but wrong where the best is right
    assert choose([better, shifted]).rate == 0.1
    assert choose([cell(0, 0.4, 90), cell(0, 0.1, 84)]).rate == 0.4


def test_a_small_rate_of_another_layer_does_not_count() -> None:
    assert choose([cell(1, 0.01, 90), cell(0, 0.4, 91)]).layer == 0


def with_margins(layer: int, rate: float, right: int, margins: np.ndarray) -> Cell:
    return replace(cell(layer, rate, right), margin=margins)


def test_margins_decide_between_equally_accurate_cells() -> None:
    level = np.linspace(-1, 1, 100)
    cells = [with_margins(0, 0.1, 99, level), with_margins(1, 0.2, 98, level + 3),
             with_margins(2, 0.3, 90, level + 9)]
    assert choose(cells).layer == 0
    # one of 100 answers lost is within the standard error 0.01, nine are not
    assert choose(cells, "margin").layer == 1


def test_the_smallest_rate_as_good_by_both_statistics() -> None:
    level, wave = np.zeros(100), np.tile([1.0, -1.0], 50)
    best = with_margins(0, 0.4, 100, level + 1)
    # the difference of margins has standard error 0.1: 0.09 below is as good, 0.11 is not
    near, far = (with_margins(0, rate, 100, level + 1 - lost + wave)
                 for rate, lost in ((0.2, 0.09), (0.1, 0.11)))
    assert choose([best, near, far], "margin").rate == 0.2
    wrong = with_margins(0, 0.05, 95, level + 1)  # accuracy is lost, margins are not
    assert choose([best, near, wrong], "margin").rate == 0.2


def test_margins_are_asked_for_only_where_they_count() -> None:
    with pytest.raises(ValueError, match="without margins"):
        choose([cell(0, 0.1, 60)], "margin")
