"""Prefix replay: start a model in the middle, from a residual stream computed once.

Nothing below layer l changes while layer l is scaled or masked. The layers below are replaced by
one stub that returns the cached input of layer l; everything else runs as transformers wrote it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prunelib.attribution.encoding import Batch
from prunelib.models import Loaded

if TYPE_CHECKING:
    from torch import Tensor


def residual_streams(loaded: Loaded, batch: Batch, layers: list[int]) -> dict[int, Tensor]:
    """Input of each of ``layers`` on the untouched model, ``[rows, length, width]``, detached.

    One forward pass up to the highest of the layers serves all of them.
    """
    import torch

    class Reached(Exception):
        """Unwinds the forward pass once the highest layer's input is known."""

    captured: dict[int, Tensor] = {}
    modules = loaded.adapter.layers(loaded.model)

    def hook(layer: int):  # type: ignore[no-untyped-def]
        def capture(_: object, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            captured[layer] = (args[0] if args else kwargs["hidden_states"]).detach()
            if layer == max(layers):
                raise Reached

        return capture

    handles = [modules[i].register_forward_pre_hook(hook(i), with_kwargs=True) for i in layers]
    try:
        with torch.no_grad(), contextlib.suppress(Reached):
            loaded.model(**batch.inputs(), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return captured


class Replayed:
    """Holds the residual stream at which a model starts, ``[rows, length, width]``."""

    stream: Tensor | None = None


@contextlib.contextmanager
def started_at(loaded: Loaded, layer: int) -> Iterator[Replayed]:
    """Within the context every forward pass starts at ``layer`` from ``Replayed.stream``.

    The layers below become stubs that all return that stream, so positions in the list of
    layers, which some families look up in their config, stay what they were. At layer 0 there
    is nothing to replay and the stream is not used.
    """
    from torch import nn

    replayed = Replayed()

    class Stub(nn.Module):
        def forward(self, *_: object, **__: object) -> Tensor:
            if replayed.stream is None:
                raise RuntimeError("no residual stream was set before the forward pass")
            return replayed.stream

    whole = loaded.adapter.layers(loaded.model)
    try:
        if layer > 0:
            loaded.adapter.set_layers(
                loaded.model, nn.ModuleList([*(Stub() for _ in range(layer)), *whole[layer:]])
            )
        yield replayed
    finally:
        loaded.adapter.set_layers(loaded.model, whole)
