"""The largest logit: what a model is most sure of, whatever is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunelib.attribution.objectives.base import Objective
from prunelib.recipe.attribution import ObjectiveSpec
from prunelib.tasks.tokenization import Encoded

if TYPE_CHECKING:
    from torch import Tensor


def make(_: ObjectiveSpec) -> Objective:
    """The objective, which has no switches."""
    return Objective(max_logit)


def max_logit(logits: Tensor, prompts: Sequence[Encoded]) -> Tensor:
    """The largest logit of each row, ``[rows]``: the DSM paper's label-free target.

    M(q) = max_y logit_y at the last position of the prompt (formulas.md §2.1).
    """
    return logits.float().max(-1).values
