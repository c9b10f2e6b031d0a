"""An intervention of finished runs, as ``prunelib export`` and ``prunelib explain`` take one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelib.errors import UserError

if TYPE_CHECKING:
    from prunelib.interventions.base import Intervention
    from prunelib.models import ModelInfo
    from prunelib.recipe.recipe import Recipe


@dataclass(frozen=True)
class Stored:
    """An intervention of finished runs, with its model as they had it.

    Attributes:
        dtype: the model's, in the latest of the runs.
        recipes: of the runs, the latest first.
    """

    info: ModelInfo
    intervention: Intervention
    dtype: str
    recipes: tuple[Recipe, ...]


def stored_intervention(model: str, digest: str, results: str, trust: bool) -> Stored:
    """The intervention of a model whose digest begins so; the model must be what it was then.

    Whether the model's code may run is asked of the user: a folder of results, which may be a
    stranger's, says only that it did.
    """
    from prunelib.models import describe
    from prunelib.results.stored_interventions import find_intervention

    found = find_intervention(results, model, digest)
    if found.recipes and found.spec.trust_remote_code != trust:
        raise UserError(f"model '{model}' ran " + (
            f"with its own code in {results}: only --trust-remote-code lets that run here"
            if found.spec.trust_remote_code else
            f"without code of its own in {results}: leave out --trust-remote-code"))
    info = describe(model, found.revision, trust, found.spec.bos)
    if info.weights_digest != found.weights_digest:
        raise UserError(f"model '{model}' has changed since {results} was made: other weights")
    return Stored(info, found.intervention, found.spec.dtype, found.recipes)
