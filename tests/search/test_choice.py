"""The rule of choice against counts, against plain statistics, and on ties."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import isclose, nan

import numpy as np
import pytest
from numpy.typing import NDArray

from prunelib.interventions.ablation import Ablation
from prunelib.search.choice import Cell, Outcome, Rule, choose, shared_gain

BEST, SMALLEST = Rule("best"), Rule("smallest_within_error")
BY_MARGIN = Rule("smallest_within_error", "margin")


def cell(layer: int, rate: float, right: int, copied: int = 0, of: int = 100, margin: float = 0.0
         ) -> Cell:
    correct = np.arange(of) < right
    wrong_copy = (np.arange(of) >= right) & (np.arange(of) < right + copied)
    return Cell(correct, wrong_copy, np.full(of, margin), layer, rate,
                Ablation.of_layer(layer, range(int(rate * 100))))


def paired(lost: int, gained: int, n: int) -> tuple[Cell, Cell]:
    """A rate of 0.4, and one of 0.1 that loses and gains so many of ``n`` answers against it."""
    best, other = np.zeros(n, bool), np.zeros(n, bool)
    best[:lost] = True
    other[lost : lost + gained] = True
    best[lost + gained :: 2] = other[lost + gained :: 2] = True
    empty = cell(0, 0.4, 0, of=n), cell(0, 0.1, 0, of=n)
    return replace(empty[0], correct=best), replace(empty[1], correct=other)


def chosen(cells: list[Cell], rule: Rule, untouched: Outcome | None = None) -> tuple[int, float]:
    found = choose(cells, rule, untouched)
    assert found is not None
    return found.layer, found.rate


@pytest.mark.parametrize("rule", [BEST, SMALLEST])
def test_right_answers_come_first(rule: Rule) -> None:
    assert chosen([cell(0, 0.1, 60), cell(1, 0.4, 90), cell(2, 0.2, 70)], rule) == (1, 0.4)


@pytest.mark.parametrize("rule", [BEST, SMALLEST])
def test_then_copying_errors_then_margins_then_the_smallest_rate(rule: Rule) -> None:
    few_copied, sure = cell(1, 0.4, 90, copied=1), cell(2, 0.3, 90, copied=1, margin=0.1)
    assert chosen([cell(0, 0.1, 90, copied=5), few_copied], rule) == (1, 0.4)
    assert chosen([few_copied, sure], rule) == (2, 0.3)
    assert chosen([cell(0, 0.2, 90), cell(1, 0.1, 90)], rule) == (1, 0.1)


@pytest.mark.parametrize("rule", [BEST, SMALLEST])
def test_full_ties_favour_no_layer(rule: Rule) -> None:
    won = {layer: 0 for layer in range(4)}
    for neurons in range(1, 201):
        alike = [replace(cell(layer, 0.1, 5, of=10),
                         ablation=Ablation.of_layer(layer, range(neurons))) for layer in won]
        found = chosen(alike, rule)
        assert found == chosen(alike[::-1], rule)
        won[found[0]] += 1
    assert all(30 <= wins <= 70 for wins in won.values()), won  # 50 ± 3 standard deviations


def test_within_one_error_depends_on_counts_alone() -> None:
    """At every number of examples, the same counts of lost and gained answers decide alike."""
    for lost, gained in product(range(9), range(4)):
        for n in [*range(max(12, lost + gained), 420), 1000, 4999]:
            best, other = paired(lost, gained, n)
            smaller = lost <= gained or (lost - gained) ** 2 <= lost + gained
            if lost == gained:  # the best is then the smaller rate anyway
                assert chosen([best, other], SMALLEST) == (0, 0.1)
            elif lost > gained:
                assert chosen([best, other], SMALLEST) == (0, 0.1 if smaller else 0.4)
                assert chosen([best, other], BEST) == (0, 0.4)


def test_one_lost_example_is_within_the_error_at_every_number_of_examples() -> None:
    """In floating point, 1/n <= sqrt(1/n²) is true of some n and false of others."""
    assert {chosen(list(paired(1, 0, n)), SMALLEST) for n in range(2, 1000)} == {(0, 0.1)}


def test_the_error_is_the_standard_error_of_the_paired_difference() -> None:
    """Against numpy, wherever the comparison is not so close that rounding decides."""
    rng = np.random.default_rng(0)
    close = 0
    for _ in range(500):
        n = int(rng.integers(5, 60))
        lost, gained = sorted(rng.integers(0, n // 2, 2), reverse=True)
        best, other = paired(int(lost), int(gained), n)
        losses = best.correct.astype(float) - other.correct
        error = losses.std(ddof=1) / np.sqrt(n)
        if isclose(losses.mean(), error, rel_tol=1e-9):
            close += 1
            continue
        if lost > gained:
            expected = 0.1 if losses.mean() <= error else 0.4
            assert chosen([best, other], SMALLEST) == (0, expected)
    assert close < 100


def test_a_small_rate_of_another_layer_does_not_count() -> None:
    assert chosen([cell(1, 0.01, 90), cell(0, 0.4, 91)], SMALLEST) == (0, 0.4)


def with_margins(layer: int, rate: float, right: int, margins: NDArray[np.float64]) -> Cell:
    return replace(cell(layer, rate, right), margin=margins)


@pytest.mark.parametrize("choice", ["best", "smallest_within_error"])
def test_margins_decide_between_about_equally_accurate_cells(choice: str) -> None:
    level = np.linspace(-1, 1, 100)
    cells = [with_margins(0, 0.1, 99, level), with_margins(1, 0.2, 98, level + 3),
             with_margins(2, 0.3, 90, level + 9)]
    assert chosen(cells, Rule(choice)) == (0, 0.1)  # type: ignore[arg-type]
    # one of 100 answers lost is within the standard error, nine are not
    assert chosen(cells, Rule(choice, "margin")) == (1, 0.2)  # type: ignore[arg-type]


def test_the_smallest_rate_as_good_by_both_statistics() -> None:
    level, wave = np.zeros(100), np.tile([1.0, -1.0], 50)
    best = with_margins(0, 0.4, 100, level + 1)
    # the difference of margins has standard error 0.1: 0.09 below is as good, 0.11 is not
    near, far = (with_margins(0, rate, 100, level + 1 - lost + wave)
                 for rate, lost in ((0.2, 0.09), (0.1, 0.11)))
    assert chosen([best, near, far], BY_MARGIN) == (0, 0.2)
    wrong = with_margins(0, 0.05, 95, level + 1)  # accuracy is lost, margins are not
    assert chosen([best, near, wrong], BY_MARGIN) == (0, 0.2)


def test_margins_are_compared_exactly() -> None:
    """A loss that is one standard error to the last digit is within it, in every order."""
    n, rng = 64, np.random.default_rng(0)
    loss = np.zeros(n)
    loss[0] = 0.1  # sum 0.1, sum of squares 0.1²: one standard error exactly
    for _ in range(50):
        order = rng.permutation(n)
        best = with_margins(0, 0.4, 0, np.full(n, 1e3) * rng.random(n))
        pair = [replace(c, correct=np.ones(n, bool), copied=np.zeros(n, bool))
                for c in (best, replace(best, rate=0.1, margin=best.margin - loss))]
        lost = pair[0].margin[0] - pair[1].margin[0]
        assert np.count_nonzero(pair[0].margin - pair[1].margin) == 1 and lost > 0
        shuffled = [replace(c, margin=c.margin[order]) for c in pair]
        assert chosen(pair, BY_MARGIN) == chosen(shuffled, BY_MARGIN) == (0, 0.1)


def test_a_cell_whose_margins_are_no_numbers_comes_last_among_equals() -> None:
    broken = cell(0, 0.1, 90, margin=nan)
    for rule in (BEST, SMALLEST, BY_MARGIN, Rule("best", "margin")):
        assert chosen([broken, cell(1, 0.4, 90, margin=-5.0)], rule) == (1, 0.4)
        assert chosen([broken], rule) == (0, 0.1)
        assert choose([broken], rule, cell(0, 0.4, 90)) is None


def test_nothing_is_chosen_where_no_cell_beats_the_untouched_model() -> None:
    untouched = cell(0, 0.4, 90, copied=3)
    equal, more, many = (cell(1, 0.2, right, margin=5.0) for right in (90, 91, 92))
    assert choose([equal], BEST, untouched) is None
    assert choose([equal, more], BEST, untouched) is more
    # nothing switched off is the smallest rate: one gained answer is within the error, two are not
    assert choose([equal, more], SMALLEST, untouched) is None
    assert choose([equal, many], SMALLEST, untouched) is many
    for choice in ("best", "smallest_within_error"):
        always = Rule(choice, nothing="excluded")  # type: ignore[arg-type]
        assert choose([equal], always, untouched) is equal


def test_nothing_by_margins() -> None:
    untouched = cell(0, 0.4, 90, margin=1.0)
    surer, unsure, wrong = (cell(1, 0.2, right, margin=margin)
                            for right, margin in ((90, 2.0), (91, 0.5), (80, 9.0)))
    for rule in (BY_MARGIN, Rule("best", "margin")):
        assert choose([surer, unsure, wrong], rule, untouched) is surer
        assert choose([unsure, wrong], rule, untouched) is None
        assert choose([cell(1, 0.2, 99, margin=0.0)], rule, untouched) is not None


def shared(layer: int, gains: list[float], n: int = 40, seed: int = 0) -> Cell:
    """A cell whose proxies gain such shares of answers against :data:`HALF`, example by example."""
    rng = np.random.default_rng(seed)
    correct = HALF.correct.copy()
    for proxy, gain in enumerate(gains):
        here = np.flatnonzero(proxy == PROXIES)
        free = here[correct[here] == (gain < 0)]
        correct[rng.permutation(free)[: round(abs(gain) * len(here))]] = gain > 0
    return Cell(correct, np.zeros(3 * n, bool), np.zeros(3 * n), layer, 0.1,
                Ablation.of_layer(layer, range(10)))


PROXIES = np.arange(120) % 3
HALF = Outcome(PROXIES * 0 + np.arange(120) // 3 % 2 == 0, np.zeros(120, bool), np.zeros(120))
SHARED = Rule("shared")


def test_the_shared_gain_is_the_mean_over_proxies_with_its_paired_error() -> None:
    found = shared_gain(shared(0, [0.5, 0.2, 0.1]), HALF, PROXIES, "accuracy")
    assert isclose(found.mean, 0.8 / 3)
    by_hand = [np.repeat([1.0, 0.0], [k, 40 - k]) for k in (20, 8, 4)]
    # The proxies differ by more than their examples let expect.
    assert isclose(found.error, np.std([0.5, 0.2, 0.1], ddof=1) / np.sqrt(3))
    alike = shared_gain(shared(0, [0.2, 0.2, 0.2]), HALF, PROXIES, "accuracy")
    assert isclose(alike.error, np.sqrt(by_hand[1].var(ddof=1) / 40 / 3))
    assert isclose(found.worst, 0.1 / by_hand[2].std(ddof=1) * np.sqrt(40))


def test_two_standard_errors_below_the_gain_are_rarely_above_the_truth() -> None:
    """Of cells that change nothing on average, few gain for certain."""
    rng = np.random.default_rng(3)
    certain = 0
    for _ in range(1000):
        flips = rng.random(120) < 0.3
        drawn = Outcome(np.where(flips, rng.random(120) < 0.5, HALF.correct), HALF.copied,
                        HALF.margin)
        certain += shared_gain(drawn, HALF, PROXIES, "accuracy").certain > 0
    assert 0 < certain < 25  # 2.3% of 1000, if examples were all that counts


def test_a_gain_that_proxies_share_beats_a_larger_one_of_a_single_proxy() -> None:
    one, all_of_them = shared(0, [0.5, 0.0, 0.0]), shared(1, [0.15, 0.15, 0.15])
    assert choose([one, all_of_them], SHARED, HALF, PROXIES) is all_of_them
    # By right answers alone the other has more.
    assert choose([one, all_of_them], BEST, HALF) is one


def test_a_cell_under_which_a_proxy_loses_is_not_taken() -> None:
    harmful, small = shared(0, [0.5, 0.5, -0.2]), shared(1, [0.15, 0.15, 0.1])
    assert choose([harmful, small], SHARED, HALF, PROXIES) is small
    assert choose([harmful], SHARED, HALF, PROXIES) is None
    assert choose([harmful], Rule("shared", nothing="excluded"), HALF, PROXIES) is harmful


def test_nothing_is_switched_off_where_no_gain_is_certain() -> None:
    assert choose([shared(0, [0.05, 0.0, 0.0])], SHARED, HALF, PROXIES) is None
    # Margins see that answers come nearer, as far as they are bounded.
    nearer = replace(shared(0, [0.0, 0.0, 0.0]), margin=np.where(np.arange(120) % 4, 2.0, 1.0))
    assert choose([nearer], SHARED, HALF, PROXIES) is None
    assert choose([nearer], Rule("shared", "margin"), HALF, PROXIES) is nearer
    broken = replace(nearer, margin=np.full(120, nan))
    assert choose([broken], Rule("shared", "margin"), HALF, PROXIES) is None
