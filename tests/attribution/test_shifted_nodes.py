"""Nodes that are shifted at random: one in each cell, nested, right on average, and quick."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from prunelib.attribution.shifted_nodes import NODES, new_nodes, nodes, rules, shift

SHIFTS = np.random.default_rng(0).random(4000)


@pytest.mark.parametrize("level", range(len(NODES)))
def test_every_cell_has_one_node_that_may_be_anywhere_in_it(level: int) -> None:
    found = nodes(level, SHIFTS)
    assert found.shape == (NODES[level], len(SHIFTS))
    assert (np.sort(np.floor(found * NODES[level]), axis=0) == np.arange(NODES[level])[:, None]
            ).all()
    inside = (found * NODES[level]) % 1
    for place in inside:
        assert stats.kstest(place, "uniform").pvalue > 1e-4


def test_levels_are_nested() -> None:
    for level in range(1, len(NODES)):
        before, all_of_it = nodes(level - 1, SHIFTS), nodes(level, SHIFTS)
        assert (all_of_it[: len(before)] == before).all()
        assert (all_of_it[len(before) :] == new_nodes(level, SHIFTS)).all()
    assert (new_nodes(0, SHIFTS) == nodes(0, SHIFTS)).all()


@pytest.mark.parametrize("function", [np.exp, lambda a: a > 0.3, lambda a: np.exp(-40 * a)],
                         ids=["smooth", "jump", "steep"])
def test_the_mean_over_prompts_is_the_integral(function: np.ufunc) -> None:
    truth = np.mean(function((np.arange(100_000) + 0.5) / 100_000))
    for level in (0, 1):
        found = function(nodes(level, SHIFTS)).mean(0)
        assert abs(stats.ttest_1samp(found, truth).statistic) < 4


def test_the_error_of_a_smooth_integrand_falls_as_the_square_of_the_nodes() -> None:
    errors = [np.sqrt(np.mean((np.exp(nodes(level, SHIFTS)).mean(0) - (np.e - 1)) ** 2))
              for level in range(4)]
    assert all(3.5 < before / after < 4.5 for before, after in pairwise(errors))


def test_rules_are_the_mean_and_half_the_difference_of_the_halves() -> None:
    values = np.exp(nodes(0, SHIFTS))
    mean, half = np.einsum("rn,np->rp", rules(0), values)
    first, second = values[:2].mean(0), values[2:].mean(0)
    np.testing.assert_allclose(mean, (first + second) / 2)
    np.testing.assert_allclose(half, (second - first) / 2)
    for level in range(1, len(NODES)):
        mean, half = rules(level)
        assert mean.sum() == 1 and not half.any()
        whole = (mean @ np.exp(new_nodes(level, SHIFTS))
                 + np.exp(nodes(level - 1, SHIFTS)).mean(0)) / 2
        np.testing.assert_allclose(whole, np.exp(nodes(level, SHIFTS)).mean(0))


def test_the_shift_of_a_prompt_is_decided_by_its_tokens() -> None:
    drawn = [shift((i, 7)) for i in range(2000)]
    assert drawn == [shift([i, 7]) for i in range(2000)]
    assert stats.kstest(drawn, "uniform").pvalue > 1e-4
