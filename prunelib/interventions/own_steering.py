"""A user's own way to steer: what it gives, and whether that is a steering, tried before any work.

The steering itself, number by number, is part of the ids of the units that try it, and travels with
them. So an edited function is noticed by what it gives, and no worker imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pkgutil import resolve_name

import numpy as np

from prunelib.errors import UserError
from prunelib.identity import seed_of
from prunelib.interventions.contrast import Contrast, places_of
from prunelib.interventions.steering import Steering, place_width
from prunelib.models import ModelInfo
from prunelib.own_functions import import_function, said
from prunelib.recipe.steering import OWN_STEERING, SteeringMethodSpec


def make_steering(method: SteeringMethodSpec, contrast: Contrast, size: int, strength: float,
                  info: ModelInfo) -> Steering:
    """What a method, built in or a user's own, makes of a contrast.

    Raises :class:`UserError` if a user's own fails, or what it gives is no steering of the model.
    """
    if not method.own:
        found: Steering = resolve_name(method.known.maker)(contrast, size, strength)
        return found
    function = import_function(OWN_STEERING, method.method)
    where = f"{OWN_STEERING} '{method.method}'"
    try:
        given = function(contrast, size, strength)
        if isinstance(given, Steering):
            given = Steering.of(given.edits, given.scope)
            _ = given.digest  # what is no plain number has none
    except Exception as error:
        raise UserError(f"{where} fails for size {size} and strength {strength:g}: {said(error)}"
                        ) from error
    if not isinstance(given, Steering):
        raise UserError(f"{where} has to return a Steering (prunelib.interventions.steering), not "
                        f"{type(given).__name__}")
    for edit in given.edits:
        if not np.isfinite([edit.factor, *edit.shifts]).all():
            raise UserError(f"{where} has to return finite shifts and factors")
        if list(edit.indices) != sorted(set(edit.indices)):
            raise UserError(f"{where} has to return ascending indices, each once")
    try:
        given.check(info)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return given


def try_method(method: SteeringMethodSpec, layers: Sequence[int], sizes: Sequence[int],
               info: ModelInfo) -> None:
    """Call a user's own method with random numbers in the shape of a model's.

    Raises :class:`UserError` as :func:`make_steering` does, or if it answers differently when it is
    asked again.
    """
    strongest = method.known.strongest
    contrast = _trial(tuple(layers), method.known.probes, info)
    for size in dict.fromkeys((sizes[0], sizes[-1])):
        first, second = (make_steering(method, contrast, size, strongest, info)
                         for _ in range(2))
        if first != second:
            raise UserError(f"{OWN_STEERING} '{method.method}' has to return the same steering "
                            "when it is called again: seed what is random, and leave the contrast "
                            "as it is")


def _trial(layers: tuple[int, ...], probes: bool, info: ModelInfo) -> Contrast:
    rng = np.random.default_rng(seed_of("trial contrast"))
    means = {place: rng.normal(size=(len(layers), place_width(info, place)))
             for place in places_of(info)}
    accuracies, losses, spreads = (
        rng.uniform(size=(len(layers), info.heads)) if probes else np.array([]) for _ in range(3))
    return Contrast(layers, means, accuracies, losses, spreads, info.heads)
