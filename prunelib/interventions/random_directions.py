"""Random directions in place of a steering's own: what any push of that size does there."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from prunelib.identity import seed_of
from prunelib.interventions.steering import Edit, Steering, packed


def has_directions(steering: Steering) -> bool:
    """Whether it adds something everywhere, and scales nothing."""
    return all(edit.shift and edit.factor == 1 for edit in steering.edits)


def random_directions(steering: Steering, seed: int) -> Steering:
    """The same edits with random directions of the same length, to six digits.

    A direction depends on the seed, the place and the dimensions alone: steerings of equal length
    at the same place have the same ones.
    """
    return Steering.of((_random(edit, seed) for edit in steering.edits), steering.scope)


def same_places(steering: Steering) -> str:
    """What a steering has in common with its random directions: where, and how much, as text."""
    return json.dumps([steering.scope, [
        [edit.layer, edit.place, edit.indices, edit.factor, _length(edit)]
        for edit in steering.edits]])


def _length(edit: Edit) -> str:
    # Six digits: that many are the same after the rounding of each dimension to float32.
    return f"{np.linalg.norm(edit.shifts.astype(np.float64)):.6g}"


def _random(edit: Edit, seed: int) -> Edit:
    drawn = np.random.default_rng(seed_of(
        "random direction", edit.layer, edit.place, ",".join(map(str, edit.indices)), seed)
    ).standard_normal(len(edit.shifts))
    return replace(edit, shift=packed(float(_length(edit)) / np.linalg.norm(drawn) * drawn))
