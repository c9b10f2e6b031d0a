"""Objectives: the scalar of a prompt's next-token logits that attribution differentiates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from prunelib.identity import digest
from prunelib.own_functions import another, import_function, source_digest
from prunelib.recipe.attribution import ObjectiveSpec
from prunelib.recipe.methods import OBJECTIVES
from prunelib.tasks.tokenization import Encoded

if TYPE_CHECKING:
    from torch import Tensor

#: From logits ``[rows, vocabulary]`` at the last position, and the prompt of each row, to one
#: value per row.
Function = Callable[["Tensor", Sequence[Encoded]], "Tensor"]


@dataclass(frozen=True)
class Row:
    """One row of a batch: a text whose next token is scored, for one prompt.

    Attributes:
        prompt: what the objective sees.
        owner: index of the prompt that the row belongs to.
        weight: factor of the row's value in the prompt's.
    """

    prompt: Encoded
    owner: int
    weight: float = 1.0


@dataclass(frozen=True)
class Objective:
    """A scalar of a prompt: Σ over its rows of weight × function(logits of the row)."""

    function: Function
    #: Several rows for each prompt, teacher-forced, or ``None`` for one row per prompt.
    expand: Callable[[Encoded], list[tuple[Encoded, float]]] | None = None

    def rows(self, prompts: Sequence[Encoded]) -> list[Row]:
        """The rows of all prompts, in their order."""
        if self.expand is None:
            return [Row(prompt, i) for i, prompt in enumerate(prompts)]
        return [Row(text, i, weight) for i, prompt in enumerate(prompts)
                for text, weight in self.expand(prompt)]


def make_objective(spec: ObjectiveSpec, expected: str | None = None) -> Objective:
    """The objective that a recipe names.

    Args:
        spec: the recipe's choice.
        expected: digest of the objective that is meant: another machine may have another version
            of a user's own module, or another module of that name.

    Raises:
        UserError: it cannot be imported.
        UnitError: it is not the one that is meant.
    """
    if spec.own:
        function = import_function("objective", spec.name)
        if expected not in (None, objective_digest(spec)):
            raise another("objective", spec.name)
        return Objective(function)
    made: Objective = resolve_name(OBJECTIVES[spec.name].maker)(spec)
    return made


def objective_digest(spec: ObjectiveSpec) -> str:
    """What identifies an objective: its switches and, for a user's own, its module's source."""
    source = source_digest("objective", spec.name) if spec.own else ""
    return digest("objective", [spec.model_dump(mode="json"), source])
