"""Standard errors of mean scores: against textbook formulas, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from prunelib.attribution.sampling import (
    mean_error,
    moments,
    query_blocks,
    query_numbers,
    sampling,
)


def test_blocks_keep_the_prompts_of_a_query_together() -> None:
    assert query_blocks(list("abcde"), 2) == [[0, 1], [2, 3], [4]]
    assert query_blocks(list("abacb"), 3) == [[0, 2], [1, 4, 3]]
    assert query_blocks(list("aaaab"), 2) == [[0, 1, 2, 3], [4]]
    assert query_numbers(list("bab")).tolist() == [0, 1, 0]


@pytest.mark.parametrize("size", [1, 4, 30])
def test_without_repeated_queries_it_is_the_standard_error_of_the_mean(size: int) -> None:
    rng = np.random.default_rng(0)
    scores, queries = rng.normal(size=(20, 7)), [str(i) for i in range(20)]
    blocks = query_blocks(queries, size)
    of = [[queries[i] for i in block] for block in blocks]
    found = sampling([moments(scores[b], q) for b, q in zip(blocks, of, strict=True)],
                     [scores[b].sum(0) for b in blocks], of)
    expected = scores.std(0, ddof=1) / 20**0.5
    np.testing.assert_allclose(found.errors, expected, rtol=1e-9)
    np.testing.assert_allclose(mean_error(scores, queries), expected, rtol=1e-9)
    first = np.concatenate([block[::2] for block in blocks]).astype(int)
    second = np.setdiff1d(range(20), first)
    if len(second):
        np.testing.assert_allclose(found.halves, [scores[first].mean(0), scores[second].mean(0)],
                                   rtol=1e-9)
    else:
        assert found.halves is None


def test_queries_are_what_is_independent() -> None:
    """The error of a mean over repeated queries: that of the queries, however often each is asked.

    Against the true spread of means over samples that are drawn anew.
    """
    rng = np.random.default_rng(1)
    queries = [str(i) for i in range(30) for _ in range(1 + i % 3)]
    numbers = query_numbers(queries)
    means, errors = [], []
    for _ in range(3000):
        scores = (rng.normal(size=(30, 1))[numbers] + 0.3 * rng.normal(size=(len(queries), 1)))
        means.append(scores.mean())
        blocks = query_blocks(queries, 10)
        of = [[queries[i] for i in block] for block in blocks]
        (error,) = sampling([moments(scores[b], q) for b, q in zip(blocks, of, strict=True)],
                            [scores[b].sum(0) for b in blocks], of).errors
        assert error == pytest.approx(mean_error(scores, queries)[0])
        errors.append(error)
    assert np.mean(np.square(errors)) == pytest.approx(np.var(means), rel=0.08)
    independent = len(queries) ** -0.5
    assert np.std(means) > 1.4 * independent, "taking prompts as independent would be wrong"


def test_of_one_query_nothing_is_known() -> None:
    scores = np.ones((3, 2))
    found = sampling([moments(scores, ["q"] * 3)], [scores.sum(0)], [["q"] * 3])
    assert (found.queries, found.errors, found.halves) == (1, None, None)
    assert np.isnan(mean_error(scores, ["q"] * 3)).all()


def test_a_ratio_has_the_error_of_its_linear_part() -> None:
    rng = np.random.default_rng(2)
    ratios, errors = [], []
    for _ in range(3000):
        base = rng.uniform(1, 3, 40)
        values = base * 0.7 + rng.normal(size=40)
        ratios.append(values.sum() / base.sum())
        errors.append(float(mean_error(values, [str(i) for i in range(40)], base)))
    assert np.mean(np.square(errors)) == pytest.approx(np.var(ratios), rel=0.08)
