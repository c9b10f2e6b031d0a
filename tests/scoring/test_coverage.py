"""Nominal coverage and rejection rates, by simulation with the benchmark's own data sets.

The band that is asked for is 93% to 98%, of tests 3% to 6%; a simulated figure has an error.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coverage import (
    SHARES,
    exact_coverage,
    pair_coverage,
    rejections,
    set_coverage,
    share_coverage,
    task_coverage,
)

DATA_SETS = 1500
#: Three standard errors of a coverage of 95% in so many data sets.
ERROR = 3 * (0.95 * 0.05 / DATA_SETS) ** 0.5


@pytest.mark.parametrize("n", [10, 20, 50, 100, 200, 400])
@pytest.mark.parametrize("share", SHARES)
def test_a_share_of_independent_answers(share: float, n: int) -> None:
    """Where no interval can be inside the band, Wilson's is at most two points from the best."""
    found, best = exact_coverage(share, n)
    assert 0.93 <= found <= 0.98 or not 0.93 <= best <= 0.98
    assert abs(found - best) < 0.07


def test_ten_answers_of_a_rare_kind_cannot_be_inside() -> None:
    assert exact_coverage(0.02, 10) == pytest.approx((0.9838, 0.9838), abs=1e-4)


def test_independent_answers_of_every_number() -> None:
    found = np.array([exact_coverage(share, n) for share in SHARES for n in range(10, 401, 3)])
    inside, possible = (found[:, 0] >= 0.93) & (found[:, 0] <= 0.98), found[:, 1] >= 0.93
    assert 0.945 < found[:, 0].mean() < 0.96 and found.min() > 0.89
    assert (inside | ~possible | (found[:, 1] > 0.98)).mean() > 0.97


@pytest.mark.parametrize(("clusters", "size", "icc"), [
    (10, 4, 0.3), (10, 8, 0.5), (25, 4, 0.0), (25, 8, 0.3), (50, 0, 0.5), (100, 8, 0.5),
    (100, 4, 0.1)])
def test_clustered_shares(clusters: int, size: int, icc: float) -> None:
    rng = np.random.default_rng(1)
    cases = [(share,) for share in SHARES] + [SHARES]
    found = [share_coverage(rng, DATA_SETS, clusters, size, icc, shares) for shares in cases]
    new, old = np.array(found).T
    # Independent answers are told from alike ones only by many queries: few may cost width.
    assert new.min() > 0.93 - ERROR and new.max() < 0.98 + ERROR
    if icc >= 0.3:
        assert old.min() < 0.85


@pytest.mark.parametrize("changes", [
    [(0.2, 0.2)], [(0.3, 0.1)], [(0.1, 0.02), (0.3, 0.05), (0.02, 0.2)], [(0.25, 0.0), (0.1, 0.1)]])
@pytest.mark.parametrize(("clusters", "size", "icc"), [
    (50, 1, 0.0), (50, 4, 0.1), (100, 8, 0.5), (400, 0, 0.3)])
def test_differences(clusters: int, size: int, icc: float, changes: list[tuple[float, float]]
                     ) -> None:
    new, _ = pair_coverage(np.random.default_rng(2), DATA_SETS, clusters, size, icc, changes)
    assert 0.93 - ERROR < new < 0.98 + ERROR


@pytest.mark.parametrize("changes", [[(0.02, 0.0)], [(0.0, 0.0)], [(0.01, 0.02)] * 5])
@pytest.mark.parametrize("clusters", [10, 50, 100])
def test_differences_where_little_changes_are_never_too_sure(
    clusters: int, changes: list[tuple[float, float]]
) -> None:
    """So few changes have a distribution of a few values, so that coverage can be anything."""
    rng = np.random.default_rng(3)
    for size, icc in ((1, 0.0), (4, 0.3), (8, 0.5)):
        assert pair_coverage(rng, DATA_SETS, clusters, size, icc, changes)[0] > 0.93 - ERROR


@pytest.mark.parametrize("sets", [3, 5, 10])
@pytest.mark.parametrize("sd", [0.0, 0.01, 0.05])
def test_differences_to_random_sets(sets: int, sd: float) -> None:
    new, given = set_coverage(np.random.default_rng(4), DATA_SETS, 200, sets, 0.1, sd)
    assert 0.93 - ERROR < new < 0.995  # with no spread and few sets its estimate costs width
    if sd == 0.05:
        assert given < 0.85


@pytest.mark.parametrize("tasks", [5, 10, 20])
def test_new_tasks(tasks: int) -> None:
    rng = np.random.default_rng(5)
    student, bootstrap = task_coverage(rng, DATA_SETS, tasks, skewed=False)
    assert 0.93 - ERROR < student < 0.97 + ERROR and bootstrap < student
    student, bootstrap = task_coverage(rng, DATA_SETS, tasks, skewed=True)
    assert bootstrap < student  # neither is right for five tasks of which one has the effect


@pytest.mark.parametrize(("pool", "asked", "changed", "alike"), [
    (11, 100, 0.9, 1.0), (11, 100, 0.7, 0.6), (14, 100, 0.6, 1.0), (52, 100, 0.3, 1.0),
    (52, 104, 0.5, 0.6), (66, 100, 0.4, 1.0), (100, 100, 0.2, 1.0)])
def test_true_hypotheses_are_rejected_at_the_nominal_rate(
    pool: int, asked: int, changed: float, alike: float
) -> None:
    new, old = rejections(np.random.default_rng(6), DATA_SETS, pool, asked, changed, alike)
    assert 0.03 - 0.006 < new < 0.06 + 0.006
    if pool < 20:
        assert old > 0.3


def test_few_changes_are_never_rejected_too_often() -> None:
    rng = np.random.default_rng(7)
    for pool in (11, 52):
        assert rejections(rng, DATA_SETS, pool, 100, 0.05, 1.0)[0] < 0.06
