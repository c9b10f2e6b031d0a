"""Ablations on transformers modules: a mask multiplied into the output projection's input.

Zero in the mask means that the unit's value entering the projection is zero, bias included,
which for every family is the same function as a zeroed input column of that projection.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from prunelib.components import BASELINE, Ablation
from prunelib.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunelib.models import Loaded


class ActivationMasks:
    """Hooks on the output projections of a model, as a context manager.

    Without masks the hooks return nothing, so the untouched model computes exactly what it
    computes without them. Leaving the context removes every hook, whatever was raised.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._masks: dict[int, Tensor] = {}
        self._handles = [
            layer.get_submodule(loaded.adapter.output_projection).register_forward_pre_hook(
                self._hook(i)
            )
            for i, layer in enumerate(loaded.adapter.layers(loaded.model))
        ]

    def _hook(self, layer: int) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            mask = self._masks.get(layer)
            return None if mask is None else (args[0] * mask, *args[1:])

        return hook

    def set(self, ablation: Ablation) -> None:
        """Switch every row of every batch to this ablation."""
        import torch

        check_fits(ablation, self._loaded.info.layers, self._loaded.info.width)
        weight = next(self._loaded.model.parameters())
        self._masks = {}
        for layer, indices in ablation.by_layer().items():
            mask = torch.ones(self._loaded.info.width, dtype=weight.dtype, device=weight.device)
            mask[indices] = 0
            self._masks[layer] = mask

    def set_rows(self, layer: int, keep: Tensor) -> None:
        """Give every batch row its own mask in one layer: ``keep`` is ``[rows, width]``."""
        self._masks = {layer: keep[:, None, :]}

    def __enter__(self) -> ActivationMasks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.set(BASELINE)
        for handle in self._handles:
            handle.remove()


def check_fits(ablation: Ablation, layers: int, width: int) -> None:
    """Raise :class:`UserError` if a component does not exist in a model of this shape."""
    for component in ablation.components:
        if not (0 <= component.layer < layers and 0 <= component.index < width):
            raise UserError(
                f"component {component.layer}.{component.site}.{component.index} is not in a "
                f"model of {layers} layers with {width} units each"
            )
