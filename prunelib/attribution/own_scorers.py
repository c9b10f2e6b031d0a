"""A user's own scorer: whether what it gives are scores, tried before any work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prunelib.attribution.integrated_gradients import PATH_ROWS, Array, Path
from prunelib.attribution.objectives.base import Objective
from prunelib.errors import UserError
from prunelib.models import Loaded
from prunelib.own_functions import import_function, said
from prunelib.tasks.tokenization import Encoded


def scores_of(name: str, given: Any, layers: int, prompts: int, neurons: int) -> Array:
    """What a scorer gave, if it is ``[layers, neurons]`` or ``[layers, prompts, neurons]``.

    Raises :class:`UserError` if it has another shape, or numbers that are not finite.
    """
    try:
        found = np.asarray(given, np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor that has a gradient, say
        raise UserError(f"scorer '{name}' has to return an array: {said(error)}") from error
    if found.shape not in ((layers, neurons), (layers, prompts, neurons)):
        raise UserError(f"scorer '{name}' has to return an array of shape [{layers}, {neurons}] or "
                        f"[{layers}, {prompts}, {neurons}], not {list(found.shape)}")
    if not np.isfinite(found).all():
        raise UserError(f"scorer '{name}' has to return finite numbers")
    return found


def try_scorer(name: str, loaded: Loaded, prompts: Sequence[Encoded], objective: Objective) -> None:
    """Call a scorer as attribution does, for the first two layers of a small model.

    Raises :class:`UserError` if it fails, or what comes back are no scores.
    """
    scorer = import_function("scorer", name)
    path = Path((0, 1), *loaded.adapter.projection(None))
    try:
        given = scorer(loaded, path, prompts, objective, PATH_ROWS)
    except Exception as error:
        raise UserError(f"scorer '{name}' fails for {len(prompts)} prompts and layers 0 and 1 of "
                        f"{loaded.info.id}: {said(error)}") from error
    scores_of(name, given, 2, len(prompts), loaded.info.components(path.site))
