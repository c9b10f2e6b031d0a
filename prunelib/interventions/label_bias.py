"""Two mitigations of biases of in-context learning, both in chosen heads only (formulas.md §4.4).

* :func:`minority_boost` against the majority-label bias: labels with few demonstrations get more
  weight at the end of the model.
* :func:`without_positions` against the recency bias: attention does not know where anything is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

from prunelib.components import Component
from prunelib.errors import UnitError, UserError
from prunelib.interventions.ablation import Ablation
from prunelib.models import Loaded
from prunelib.models.head_access import LastAttention, final_norm, heads_of

if TYPE_CHECKING:
    from torch import Tensor, nn

#: The paper's constant a_c; whether it was tuned for each model is unknown (formulas.md §4.4).
STRENGTH = 0.03
#: What the head's output without positions does to its own. The paper does not say.
Mode = Literal["replace", "add"]


@contextmanager
def minority_boost(
    loaded: Loaded,
    heads: Sequence[Component],
    places: Sequence[Sequence[int]],
    ratios: Sequence[float],
    strength: float = STRENGTH,
) -> Iterator[None]:
    """Within the context, minority labels weigh more in what some heads say of their prompt.

    Their weighted value-output vectors
    (:meth:`~prunelib.models.head_access.LastAttention.weighted`) at the minority label's
    places are multiplied by a = a_c·a_v and added to the final embedding, which is what enters
    the final norm at the last position (formulas.md §4.4). With strength 0, without heads or
    without places nothing is installed.

    Args:
        loaded: the model. Every forward pass within the context is one of whole prompts, one row
            for each element of ``places``, padded on the left.
        heads: components of site ``head``.
        places: of each row, where it shows the label with fewer demonstrations, counted from the
            end (-1 is the last position).
        ratios: a_v of each row: how many times more demonstrations the other label has.
        strength: a_c.

    Raises:
        UserError: a head is not in this model, or the model has no final norm that sees the sum of
            its heads' outputs.
        UnitError: a forward pass has another number of rows.
    """
    import torch

    _checked(loaded, heads)
    norm = final_norm(loaded)
    if not strength or not heads or not any(places):
        yield
        return
    factor = torch.zeros(len(places), max(-p for row in places for p in row),
                         dtype=loaded.model.dtype, device=loaded.device)
    for i, (row, ratio) in enumerate(zip(places, ratios, strict=True)):
        factor[i, list(row)] = strength * ratio
    last = LastAttention()

    def add(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        stream = args[0].to(loaded.device, copy=True)
        if len(stream) != len(factor) or stream.shape[1] < factor.shape[1]:
            raise UnitError(f"this pass of {tuple(stream.shape[:2])} rows and positions is not of "
                            f"the {len(factor)} prompts whose minority labels are known")
        for head in heads:
            weighted = last.weighted(loaded, head.layer, head.index)[:, -factor.shape[1]:]
            stream[:, -1] += (weighted.to(loaded.device) * factor[:, :, None]).sum(1)
        return (stream, *args[1:])

    with ExitStack() as stack:
        stack.enter_context(last.reading(loaded, {head.layer for head in heads}))
        stack.callback(norm.register_forward_pre_hook(add).remove)
        yield


@contextmanager
def without_positions(
    loaded: Loaded, heads: Sequence[Component], mode: Mode = "replace"
) -> Iterator[None]:
    """Within the context some heads attend without position encoding.

    Their layers' own attention runs a second time as if every token stood at one place (rotary
    embeddings) or every distance were zero (ALiBi), and what enters the out-projection there is
    taken for these heads (formulas.md §4.4). What masks say stays: causality, sliding windows.

    Args:
        loaded: the model; whole prompts only, not one token after a cache.
        heads: components of site ``head``; none change nothing.
        mode: whether that replaces a head's output (the default, formulas.md §6, row 13) or is
            added.

    Raises:
        UserError: a head is not in this model; positions are in the stream, where no head's
            attention can be freed of them; a pass continues a cache.
    """
    _checked(loaded, heads)
    known = heads_of(loaded).position
    if known == "learned":
        raise UserError(f"model '{loaded.info.id}' learns embeddings of positions and adds them to "
                        "the stream, so no head's attention can be computed without them: use a "
                        "model with rotary embeddings or ALiBi")
    with ExitStack() as stack:
        layers = loaded.adapter.layers(loaded.model)
        for i, indices in Ablation.of(heads).by_layer("head").items():
            attention = layers[i].get_submodule(loaded.adapter.attention or "")
            out = layers[i].get_submodule(heads_of(loaded).out)
            second = _SecondPass(loaded, indices, mode)
            for handle in (attention.register_forward_pre_hook(second.run, with_kwargs=True),
                           out.register_forward_pre_hook(second.mix)):
                stack.callback(handle.remove)
        yield


class _SecondPass:
    """The attention of one layer, run once without positions before it runs as it is."""

    def __init__(self, loaded: Loaded, heads: Iterable[int], mode: Mode) -> None:
        self._size = loaded.info.head_size
        self._heads = list(heads)
        self._add = mode == "add"
        self._running = False
        self._found: Tensor | None = None

    def run(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        changed = dict(kwargs)
        for name in ("past_key_values", "layer_past"):
            cache = changed.pop(name, None)
            if cache is not None and cache.get_seq_length(getattr(module, "layer_idx", 0)):
                raise UserError("without positions a prompt is read as a whole: use_cache=False")
        if "alibi" in changed:
            changed["alibi"] = changed["alibi"] * 0
        else:
            # All at the place of the first token: rotations cancel, and a scale that some models
            # put on them stays.
            changed["position_embeddings"] = tuple(
                part[:, :1].expand_as(part) for part in changed["position_embeddings"])
        self._running = True
        try:
            module.forward(*args, **changed)
        finally:
            self._running = False

    def mix(self, _: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if self._running:
            self._found = args[0]
            return None
        assert self._found is not None  # noqa: S101
        mixed = args[0].clone()
        for head in self._heads:
            part = slice(head * self._size, (head + 1) * self._size)
            own = mixed[..., part] if self._add else 0
            mixed[..., part] = own + self._found[..., part]
        self._found = None
        return (mixed, *args[1:])


def _checked(loaded: Loaded, heads: Sequence[Component]) -> None:
    heads_of(loaded)
    if wrong := [head for head in heads if head.site != "head"]:
        raise UserError(f"components of site 'head' are meant, not '{wrong[0].site}'")
    Ablation.of(heads).check(loaded.info)
