from __future__ import annotations

import numpy as np

from prunelib.components import Ablation
from prunelib.search.choice import Cell, choose


def cell(layer: int, rate: float, right: int, copied: int = 0, of: int = 100) -> Cell:
    correct = np.arange(of) < right
    wrong_copy = (np.arange(of) >= right) & (np.arange(of) < right + copied)
    return Cell(layer, rate, Ablation.units(layer, range(int(rate * 100))), correct, wrong_copy)


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
    shifted = Cell(0, 0.1, Ablation.units(0, [1]), ~best.correct, best.copied)
    better = Cell(0, 0.4, best.ablation, best.correct | (np.arange(100) == 99), best.copied)
    # as accurate within any unpaired error, but wrong where the best is right
    assert choose([better, shifted]).rate == 0.1
    assert choose([cell(0, 0.4, 90), cell(0, 0.1, 84)]).rate == 0.4


def test_a_small_rate_of_another_layer_does_not_count() -> None:
    assert choose([cell(1, 0.01, 90), cell(0, 0.4, 91)]).layer == 0
