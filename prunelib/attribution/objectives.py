"""Objectives: the scalar of a prompt's next-token logits that attribution differentiates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from prunelib.attribution.encoding import Encoded

if TYPE_CHECKING:
    from torch import Tensor

#: From logits ``[rows, vocabulary]`` at the last prompt position, and the prompt of each row, to
#: one value per row.
Objective = Callable[["Tensor", Sequence[Encoded]], "Tensor"]


def copy_shift(logits: Tensor, prompts: Sequence[Encoded]) -> Tensor:
    """Mean probability of the demonstrations' answers minus that of the gold answer, ``[rows]``.

    The prediction shift of the copy-bias paper, sec. 3.3 (papers.md §1.3), with the sign that
    makes the highest score the most copying neuron. The paper leaves open whether answers are
    averaged and whether probabilities are meant: the mean over different answers, and softmax
    probabilities of their first tokens, are this project's default (papers.md §6, 1).
    """
    import torch

    probabilities = logits.float().softmax(-1)
    weights = torch.zeros_like(probabilities)
    for row, prompt in enumerate(prompts):
        copies = list(prompt.first_copies)
        if copies:
            weights[row, copies] = 1 / len(copies)
        weights[row, prompt.first_gold] -= 1
    return (probabilities * weights).sum(-1)


OBJECTIVES: dict[str, Objective] = {"copy_shift": copy_shift}
