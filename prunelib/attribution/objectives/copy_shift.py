"""The prediction shift of the copy-bias paper: how much more the copied answers count."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from prunelib.attribution.objectives.base import Objective
from prunelib.recipe.attribution import ObjectiveSpec
from prunelib.tasks.tokenization import Encoded

if TYPE_CHECKING:
    from torch import Tensor


def make(spec: ObjectiveSpec) -> Objective:
    """The objective with the switches of a recipe."""
    shift = functools.partial(copy_shift, spec=spec)
    if spec.tokens == "first":
        return Objective(shift)
    return Objective(shift, functools.partial(_teacher_forced, spec=spec))


def copy_shift(
    logits: Tensor, prompts: Sequence[Encoded], spec: ObjectiveSpec = ObjectiveSpec()  # noqa: B008
) -> Tensor:
    """Score of the demonstrations' answers minus that of the gold answer, ``[rows]``.

    The prediction shift of the copy-bias paper, sec. 3.3 (formulas.md §1.3), with the sign that
    makes the highest score the most copying neuron. The paper leaves open how answers are joined
    and in which space: the mean over different answers of the softmax probability of their first
    tokens is this project's default (formulas.md §6, row 1), the switches of ``spec`` are the rest.
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
