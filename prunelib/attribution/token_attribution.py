"""Integrated gradients of a prompt's tokens: which of them an answer comes from.

The path leads from a baseline embedding at every position to the prompt's own embeddings; a
token's score is Σ_d (e − b)_d ∫ ∂F/∂x_d dα over the dimensions d of its embedding (Sundararajan
et al. 2017). Explaining one prompt before and after an intervention is the qualitative example of
the DSM paper (formulas.md §2); its own settings are not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from prunelib.attribution import quadrature
from prunelib.models import Loaded
from prunelib.tasks.tokenization import PAD

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]
#: Where the path begins, at every position: the embedding of the padding token (of the end of
#: sequence, where a tokenizer has no padding), or zero.
Origin = Literal["padding", "zero"]
#: Rows (values of α) of one forward and backward pass. Fixed, as rounding depends on it; small,
#: because the pass keeps the activations of every layer.
TOKEN_ROWS = 16
#: A path from zero is walked in steps that grow by this many e-folds altogether. Near zero a norm
#: multiplies its input by up to 1/√ε, layer upon layer: without such steps all of F's rise lies
#: before the second node (measured on a Llama of 4 layers: gaps of 10¹⁰; with them, some 5%).
FOLDS = 30.0


@dataclass(frozen=True)
class Target:
    """The scalar F that is explained: the logit or the probability of one token at the end.

    The token is fixed along the path and under an intervention, so that scores before and after
    explain the same thing. The logit of the untouched model's own prediction is the label-free
    choice of the DSM paper (formulas.md §2.1).
    """

    token: int
    quantity: Literal["logit", "probability"] = "logit"

    def of(self, logits: Tensor) -> Tensor:
        """F of every row of ``logits [rows, vocabulary]``, ``[rows]``."""
        values = logits.double()
        return (values.softmax(-1) if self.quantity == "probability" else values)[:, self.token]


@dataclass(frozen=True)
class TokenScores:
    """Scores of a prompt's tokens.

    Attributes:
        scores: attribution of each token, in the unit of F, ``[tokens]``.
        error: estimated relative L2 error of ``scores``, as in ``LayerScores``.
        nodes: values of α that were computed.
        start: F where the path begins.
        end: F of the prompt.
    """

    scores: Array
    error: float
    nodes: int
    start: float
    end: float

    @property
    def gap(self) -> float:
        """Completeness gap Σ_t IG_t − (F(1) − F(0))."""
        return float(self.scores.sum()) - (self.end - self.start)


def predicted(loaded: Loaded, ids: Sequence[int]) -> int:
    """The token that a model gives the highest logit after a prompt."""
    import torch

    with torch.no_grad():
        prompt = torch.tensor([list(ids)], device=loaded.device)
        logits = loaded.model(input_ids=prompt, use_cache=False, logits_to_keep=1).logits
    return int(logits[0, -1].argmax())


def token_scores(
    loaded: Loaded,
    ids: Sequence[int],
    target: Target,
    origin: Origin = "padding",
    tolerance: float = 0.01,
) -> TokenScores:
    """Scores of a prompt's tokens in a model, as it is: under an intervention where one is live.

    Nodes are doubled until the estimated error is at most ``tolerance``, or there is no larger
    rule; ``error`` and ``gap`` of what is returned say how far that went. A path from padding
    takes fewer nodes than one from zero.
    """
    sums: list[Array] = []
    values: list[Array] = []
    start, step = _path(loaded, ids, origin)
    for level in range(len(quadrature.NODES)):
        alphas, speed = _walk(quadrature.new_nodes(level), bool(start.any()))
        for some in (slice(i, i + TOKEN_ROWS) for i in range(0, len(alphas), TOKEN_ROWS)):
            along, value = _pass(loaded, start, step, target, alphas[some])
            sums.append(along * speed[some, None])
            values.append(value)
        found = _reduced(np.concatenate(sums), np.concatenate(values), level)
        if found.error <= tolerance:
            break
    return found


def _path(loaded: Loaded, ids: Sequence[int], origin: Origin) -> tuple[Tensor, Tensor]:
    """Where the path begins, and the way from there to the prompt, each ``[tokens, width]``."""
    import torch

    embed = loaded.model.get_input_embeddings()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        end = embed(torch.tensor(list(ids), device=loaded.device))
        padding = torch.full((len(ids),), _padding(loaded), device=loaded.device)
        start = embed(padding) if origin == "padding" else torch.zeros_like(end)
    return start, end - start


def _padding(loaded: Loaded) -> int:
    """The token that means nothing: the tokenizer's padding, else its end, else any."""
    tokenizer: Any = loaded.tokenizer
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, PAD)
    return next(i for i in known if i is not None and i < loaded.model.config.vocab_size)


def _walk(times: Array, straight: bool) -> tuple[Array, Array]:
    """α and dα/du at the times u of a walk from 0 to 1, at an even pace or ever faster."""
    if straight:
        return times, np.ones_like(times)
    whole = np.expm1(FOLDS)
    return np.expm1(FOLDS * times) / whole, FOLDS * np.exp(FOLDS * times) / whole


def _pass(
    loaded: Loaded, start: Tensor, step: Tensor, target: Target, alphas: Array
) -> tuple[Array, Array]:
    """Σ_d step_d ∂F/∂x_d ``[nodes, tokens]`` and F ``[nodes]``."""
    import torch

    scale = torch.tensor(alphas, dtype=step.dtype, device=step.device)[:, None, None]
    embedded = (start + scale * step).requires_grad_(True)
    with torch.enable_grad():
        logits = loaded.model(inputs_embeds=embedded, use_cache=False, logits_to_keep=1).logits
        value = target.of(logits[:, -1])
        (gradient,) = torch.autograd.grad(value.sum(), embedded)
    along = (gradient.double() * step.double()).sum(-1)
    return along.cpu().numpy(), value.detach().cpu().numpy()


def _reduced(sums: Array, values: Array, level: int) -> TokenScores:
    order = quadrature.ascending(level)
    sums, values = sums[order], values[order]
    scores = quadrature.weights(level) @ sums
    distance = float(np.linalg.norm(scores - quadrature.coarse_weights(level) @ sums))
    norm = float(np.linalg.norm(scores))
    error = distance / norm if norm > 0 else 0.0
    return TokenScores(scores, error, len(values), float(values[0]), float(values[-1]))
