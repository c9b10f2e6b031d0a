"""Random directions of the length of a steering's own."""

from __future__ import annotations

import numpy as np
import pytest

from prunelib.interventions.random_directions import (
    has_directions,
    random_directions,
    same_places,
)
from prunelib.interventions.steering import Edit, Steering, packed

RNG = np.random.default_rng(0)
VECTOR = RNG.normal(size=64)
OWN = Steering.of([Edit(2, "stream", shift=packed(5 * VECTOR)),
                   Edit(3, "head", (4, 5, 6, 7), packed([1e-4, 2e-4, 0, 0]))])


def test_they_are_as_long_and_elsewhere() -> None:
    found = [random_directions(OWN, seed) for seed in range(40)]
    assert len({steering.digest for steering in found}) == 40
    for steering in found:
        assert [(e.layer, e.place, e.indices) for e in steering.edits] == [
            (e.layer, e.place, e.indices) for e in OWN.edits]
        for edit, own in zip(steering.edits, OWN.edits, strict=True):
            assert np.linalg.norm(edit.shifts) == pytest.approx(np.linalg.norm(own.shifts), 1e-5)
        assert same_places(steering) == same_places(OWN)
    cosines = [steering.edits[0].shifts @ VECTOR
               / np.linalg.norm(steering.edits[0].shifts) / np.linalg.norm(VECTOR)
               for steering in found]
    assert abs(np.mean(cosines)) < 3 / np.sqrt(40 * 64)
    assert np.std(cosines) == pytest.approx(1 / 8, rel=0.4)


def test_the_direction_depends_on_the_place_and_not_on_the_length() -> None:
    first, second = (random_directions(Steering.of([Edit(2, "stream", shift=packed(by * VECTOR))]),
                                       0).edits[0].shifts for by in (1, -7))
    np.testing.assert_allclose(7 * first, second, rtol=1e-5)
    other = random_directions(Steering.of([Edit(1, "stream", shift=packed(VECTOR))]), 0)
    assert abs(other.edits[0].shifts @ first) < 0.5 * np.linalg.norm(first) ** 2


def test_lengths_are_told_apart_and_survive_rounding() -> None:
    """Whatever the length: that of the random one, after float32, is the same text."""
    for length in np.exp(RNG.uniform(-9, 9, 300)):
        own = Steering.of([Edit(0, "mlp_out", shift=packed(length * VECTOR))])
        assert same_places(random_directions(own, 1)) == same_places(own)
        longer = Steering.of([Edit(0, "mlp_out", shift=packed(1.0001 * length * VECTOR))])
        assert same_places(longer) != same_places(own)


def test_what_scales_has_none() -> None:
    assert has_directions(OWN)
    assert not has_directions(Steering.of([*OWN.edits, Edit(1, "head", (1,), factor=2.0)]))
