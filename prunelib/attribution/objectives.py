"""Objectives: the scalar of a prompt's next-token logits that attribution differentiates."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prunelib.attribution.custom_objectives import import_objective, source_digest
from prunelib.errors import UnitError
from prunelib.identity import digest
from prunelib.recipe.base import ObjectiveSpec
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
        function = import_objective(spec.name)
        if expected not in (None, objective_digest(spec)):
            raise UnitError(f"objective '{spec.name}' is another one here ("
                            f"{function.__code__.co_filename}) than where the run was started")
        return Objective(function)
    if spec.name == "max_logit":
        return Objective(max_logit)
    shift = functools.partial(copy_shift, spec=spec)
    if spec.tokens == "first":
        return Objective(shift)
    return Objective(shift, functools.partial(_teacher_forced, spec=spec))


def objective_digest(spec: ObjectiveSpec) -> str:
    """What identifies an objective: its switches and, for a user's own, its module's source."""
    source = source_digest(spec.name) if spec.own else ""
    return digest("objective", [spec.model_dump(mode="json"), source])


def copy_shift(
    logits: Tensor, prompts: Sequence[Encoded], spec: ObjectiveSpec = ObjectiveSpec()  # noqa: B008
) -> Tensor:
    """Score of the demonstrations' answers minus that of the gold answer, ``[rows]``.

    The prediction shift of the copy-bias paper, sec. 3.3 (papers.md §1.3), with the sign that
    makes the highest score the most copying neuron. The paper leaves open how answers are joined
    and in which space: the mean over different answers of the softmax probability of their first
    tokens is this project's default (papers.md §6, row 1), the switches of ``spec`` are the rest.
    Without a demonstration's answer that differs from the gold one, only the gold answer counts.
    """
    import torch

    scores = logits.float()
    if spec.space != "logit":
        scores = scores.log_softmax(-1) if spec.space == "log_probability" else scores.softmax(-1)
    if spec.aggregate == "max":
        return torch.stack([_of_max(row, prompt, spec) for row, prompt in
                            zip(scores, prompts, strict=True)])
    weights = torch.zeros_like(scores)
    for row, prompt in enumerate(prompts):
        copies = [] if spec.gold_only else list(prompt.first_copies)
        if copies:
            weights[row, copies] = 1.0 if spec.aggregate == "sum" else 1 / len(copies)
        weights[row, prompt.first_gold] -= 1
    return (scores * weights).sum(-1)


def _of_max(scores: Tensor, prompt: Encoded, spec: ObjectiveSpec) -> Tensor:
    copies = [] if spec.gold_only else list(prompt.first_copies)
    gold = -scores[prompt.first_gold]
    return gold + scores[copies].max() if copies else gold


def _teacher_forced(prompt: Encoded, spec: ObjectiveSpec) -> list[tuple[Encoded, float]]:
    """Rows whose weighted sum is Σ over all tokens of the answers, each given those before it."""
    copies = [] if spec.gold_only else sorted(set(prompt.answers) - {prompt.gold})
    share = -1.0 if spec.aggregate == "sum" else -1.0 / max(1, len(copies))
    return [
        (replace(prompt, prompt=prompt.prompt + answer[:i], gold=(token,), answers=()), weight)
        for answer, weight in [(prompt.gold, 1.0), *((copy, share) for copy in copies)]
        for i, token in enumerate(answer)
    ]


def max_logit(logits: Tensor, prompts: Sequence[Encoded]) -> Tensor:
    """The largest logit of each row, ``[rows]``: the DSM paper's label-free target.

    M(q) = max_y logit_y at the last position of the prompt (papers.md §2.1).
    """
    return logits.float().max(-1).values
