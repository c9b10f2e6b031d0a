"""Gradient importance of attention heads and whole FFNs, after the OPT-66B paper.

With L the loss of the gold answer, A what a component gives at every position of a prompt and g
the gradient of L with respect to it, Σ g·A over all positions is the derivative of L with respect
to a gate on the component, at 1: to first order, minus what switching it off adds to the loss.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from prunelib.attribution.sampling import mean_error
from prunelib.errors import UnitError, UserError
from prunelib.models import Loaded
from prunelib.tasks.tokenization import PAD, Encoded

if TYPE_CHECKING:
    from torch import Tensor, nn

#: How the products of gradient and activation become one number; the variants rank differently.
#: ``per_token``: Σ over positions of |g·A|, as released (formulas.md §3.2). ``gate``: mean over
#: prompts of |Σ over positions of g·A|, as written (Eq. 8; formulas.md §3.1, §5.5). ``signed``: the
#: same without the absolute value.
Variant = Literal["per_token", "gate", "signed"]
Kind = Literal["head", "ffn"]
Array = NDArray[np.float64]

VARIANTS: tuple[Variant, ...] = ("per_token", "gate", "signed")

#: Prompts of one forward and backward pass. Fixed, not fitted to the machine (the rounding of a
#: batch depends on its shape), and small: the activations of every layer are kept.
IMPORTANCE_ROWS = 8

_IGNORED = -100


@dataclass(frozen=True)
class Importance:
    """Importance of every component of a kind, as what each prompt adds to it.

    Attributes:
        each: ``[prompts, layers, components]``.
        weights: what each prompt adds to the denominator, ``[prompts, layers or 1, 1]``.
    """

    each: Array
    weights: Array

    @property
    def scores(self) -> Array:
        """Σ each / Σ weights, ``[layers, components]``."""
        scores: Array = self.each.sum(0) / self.weights.sum(0)
        return scores

    def errors(self, queries: Sequence[str]) -> Array:
        """Standard errors of the scores, ``[layers, components]``; nan of one query."""
        return mean_error(self.each, queries, self.weights)


def gradient_importance(
    loaded: Loaded, prompts: Sequence[Encoded], rows: int = IMPORTANCE_ROWS
) -> dict[Kind, dict[Variant, Importance]]:
    """Importance of every head and every whole FFN: one forward and backward pass of each prompt.

    The loss of a prompt x with gold answer y is -(1/T) Σ log p(y_j | x, y_<j) over the T tokens of
    y (Eq. 9; formulas.md §3.1), in nats. ``gate`` and ``signed`` are means over prompts. The sum of
    ``per_token`` over all prompts is divided as in the released code (formulas.md §3.2): by their
    tokens, all but the last of each, and in the last layer, where only the positions that predict
    the answer have a gradient, by the tokens of the answers.

    The papers have no gradient score for FFNs; theirs is formed likewise, from the output of the
    MLP's last projection. Where a norm follows that projection (Gemma 2 and 3) a gate on all
    of its output changes nothing but rounding, so the FFNs of those families score zero.

    Args:
        loaded: the model, frozen; left as it was.
        prompts: prompts with their gold answers.
        rows: prompts of one batch.

    Returns:
        Kind of component → variant → importance, float64: of ``head`` for ``[layers, heads]``, of
        ``ffn`` for ``[layers, 1]``.

    Raises:
        UserError: the model has no attention heads, or a prompt has no gold answer.
        UnitError: a prompt and its gold answer are longer than the model's context.
    """
    _check(loaded, prompts)
    depth, heads = loaded.info.layers, loaded.info.heads
    shapes: dict[Kind, tuple[int, ...]] = {"head": (depth, heads), "ffn": (depth, 1)}
    each: dict[Kind, dict[Variant, Array]] = {
        kind: {variant: np.zeros((len(prompts), *shape)) for variant in VARIANTS}
        for kind, shape in shapes.items()
    }
    with _kept(loaded) as kept:
        for start in range(0, len(prompts), rows):
            block = slice(start, start + rows)
            for layer, kind, products in _products(loaded, prompts[block], kept):
                gates = products.sum(1).cpu().numpy()
                each[kind]["per_token"][block, layer] = products.abs().sum(1).cpu().numpy()
                each[kind]["gate"][block, layer] = np.abs(gates)
                each[kind]["signed"][block, layer] = gates
    tokens = np.empty((len(prompts), depth, 1))
    tokens[:] = np.array([len(_fed(prompt)) for prompt in prompts])[:, None, None]
    tokens[:, -1] = np.array([len(prompt.gold) for prompt in prompts])[:, None]
    ones = np.ones((len(prompts), 1, 1))
    return {kind: {variant: Importance(values, tokens if variant == "per_token" else ones)
                   for variant, values in of_kind.items()} for kind, of_kind in each.items()}


def _check(loaded: Loaded, prompts: Sequence[Encoded]) -> None:
    if "head" not in loaded.adapter.sites:
        raise UserError(f"a model of type '{loaded.info.model_type}' has no attention heads: "
                        "score heads of a transformer")
    if not prompts:
        raise ValueError("no prompts")
    if not all(prompt.gold for prompt in prompts):
        raise UserError("head importance needs gold answers: use a task with labels")
    # BLOOM's ALiBi has no end.
    context = getattr(loaded.model.config, "max_position_embeddings", None)
    longest = max(len(_fed(prompt)) for prompt in prompts)
    if context and longest > context:
        raise UnitError(f"too long: {longest} tokens in a context of {context}")


def _fed(prompt: Encoded) -> tuple[int, ...]:
    """What the model reads: nothing is predicted from the answer's last token."""
    return prompt.prompt + prompt.gold[:-1]


@contextlib.contextmanager
def _kept(loaded: Loaded) -> Iterator[dict[tuple[int, Kind], Tensor]]:
    """Within the context every forward pass leaves here what heads and FFNs give.

    Weights are frozen, so the first of these tensors are where differentiation begins.
    """
    kept: dict[tuple[int, Kind], Tensor] = {}

    def keep(place: tuple[int, Kind], values: Tensor) -> Tensor:
        kept[place] = values if values.requires_grad else values.detach().requires_grad_()
        return kept[place]

    def entering(place: tuple[int, Kind]) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (keep(place, args[0]), *args[1:])

        return hook

    def leaving(place: tuple[int, Kind]) -> Any:
        def hook(_: nn.Module, __: object, output: Tensor) -> Tensor:
            return keep(place, output)

        return hook

    with contextlib.ExitStack() as stack:
        for i, layer in enumerate(loaded.adapter.layers(loaded.model)):
            heads = layer.get_submodule(loaded.adapter.place("head")[0])
            ffn = layer.get_submodule(loaded.adapter.place("ffn")[0])
            for handle in (heads.register_forward_pre_hook(entering((i, "head"))),
                           ffn.register_forward_hook(leaving((i, "ffn")))):
                stack.callback(handle.remove)
        yield kept


def _products(
    loaded: Loaded, block: Sequence[Encoded], kept: dict[tuple[int, Kind], Tensor]
) -> Iterator[tuple[int, Kind, Tensor]]:
    """Layer, kind and g·A of its components ``[rows, positions, components]``.

    0 where padded: no loss depends on that.
    """
    import torch

    with torch.enable_grad():
        loss = _losses(loaded, block).sum()
        places = sorted(kept)
        slopes = torch.autograd.grad(loss, [kept[place] for place in places])
    for (layer, kind), slope in zip(places, slopes, strict=True):
        products = kept.pop((layer, kind)).detach().double() * slope.double()
        # OPT's FFN has rows and positions in one dimension.
        sliced = products.reshape(len(block), -1, loaded.info.components(kind),
                                  loaded.info.span(kind))
        yield layer, kind, sliced.sum(-1)


def _losses(loaded: Loaded, block: Sequence[Encoded]) -> Tensor:
    """Mean over the tokens of the gold answer of -log p, teacher-forced, ``[rows]``.

    Padding is on the right, where causal attention never looks from a prompt's own tokens: on the
    left BLOOM gives nan in float64, where a row of its attention is masked throughout. Logits are
    computed from the end of the shortest prompt on.
    """
    import torch
    from torch.nn.functional import cross_entropy

    texts = [_fed(prompt) for prompt in block]
    longest = max(len(text) for text in texts)
    ids = torch.full((len(block), longest), PAD)
    mask = torch.zeros_like(ids)
    first = min(len(prompt.prompt) for prompt in block) - 1
    targets = torch.full((len(block), longest - first), _IGNORED)
    for row, (text, prompt) in enumerate(zip(texts, block, strict=True)):
        ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
        start = len(prompt.prompt) - 1 - first
        targets[row, start : start + len(prompt.gold)] = torch.tensor(prompt.gold)
    ids, mask, targets = (x.to(loaded.device) for x in (ids, mask, targets))
    logits = loaded.model(input_ids=ids, attention_mask=mask, use_cache=False,
                          logits_to_keep=longest - first).logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = cross_entropy(logits.transpose(1, 2), targets, ignore_index=_IGNORED,
                           reduction="none")
    return losses.sum(1) / (targets != _IGNORED).sum(1)
