from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from prunelib.attribution import quadrature as q

LEVELS = range(len(q.NODES))


@pytest.mark.parametrize("level", LEVELS)
def test_polynomials_below_the_number_of_nodes_are_exact(level: int) -> None:
    for power in range(min(q.NODES[level], 24)):
        value = q.weights(level) @ q.nodes(level) ** power
        assert value == pytest.approx(1 / (power + 1), abs=1e-13)


@pytest.mark.parametrize("level", LEVELS)
def test_levels_are_nested(level: int) -> None:
    found = np.concatenate([q.new_nodes(i) for i in range(level + 1)])
    assert len(found) == q.NODES[level]
    np.testing.assert_allclose(found[q.ascending(level)], q.nodes(level), atol=1e-15)
    assert q.nodes(level)[0] == 0 and q.nodes(level)[-1] == 1


@pytest.mark.parametrize("level", LEVELS[1:])
def test_the_coarse_rule_is_the_one_before(level: int) -> None:
    coarse = q.coarse_weights(level)
    np.testing.assert_allclose(coarse[::2], q.weights(level - 1))
    assert not coarse[1::2].any()


def test_a_smooth_function_against_scipy() -> None:
    def f(a: float) -> float:
        return float(np.exp(-a) / (1 + 5 * a))

    expected = quad(f, 0, 1, epsabs=1e-14)[0]
    assert q.weights(2) @ np.vectorize(f)(q.nodes(2)) == pytest.approx(expected, abs=1e-12)


def test_the_estimate_bounds_the_error_of_a_jump() -> None:
    """What the scores of single prompts look like: F switches abruptly at one place."""
    for place in np.linspace(0.05, 0.95, 37):
        for level in (1, 2, 3):
            values = (q.nodes(level) > place).astype(float)
            assert abs(q.weights(level) @ values - (1 - place)) < 1.6 / (q.NODES[level] - 1)
