"""Ablations: frozen sets of components that are set to zero, and how transformers runs them.

A mask is multiplied into a projection's input or output. What a zero in it switches off depends on
the site:

* ``mlp_hidden``: a neuron's value where it enters the MLP's output projection, bias included. For
  every family that is the same function as a zeroed input column of that projection.
* ``mlp_row``: an output of the papers' projection, of which the bias stays: the same as a zeroed
  row of its weight.
* ``mixer_in``: an output of a Mamba mixer's input projection: the same as a zeroed row.
* ``mlp_out``: an output of the MLP's output projection, bias included; ``ffn``: all of them.
* ``head``: a slice of what enters the attention's output projection.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from prunelib.components import Component, Site
from prunelib.errors import UserError
from prunelib.identity import digest
from prunelib.interventions.base import Intervention
from prunelib.models.adapter import output_dim
from prunelib.models.registry import adapter_for

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel

    from prunelib.models import Loaded, ModelInfo


@dataclass(frozen=True)
class Ablation(Intervention):
    """A frozen set of components set to zero. The empty ablation is the baseline."""

    kind: ClassVar[str] = "ablation"

    components: tuple[Component, ...] = ()

    @classmethod
    def of(cls, components: Iterable[Component]) -> Ablation:
        """The ablation of these components, in canonical order, each once."""
        return cls(tuple(sorted(set(components))))

    @classmethod
    def of_layer(cls, layer: int, indices: Iterable[int], site: Site = "mlp_hidden") -> Ablation:
        """The ablation of some components of one layer."""
        return cls.of(Component(layer, site, int(i)) for i in indices)

    @functools.cached_property
    def digest(self) -> str:  # type: ignore[override]
        """Content digest, by which every table names the intervention."""
        return digest("ablation", [[c.layer, c.site, c.index] for c in self.components])

    def content(self) -> dict[str, Any]:
        """Layer, site and index of every component, as three lists of one length."""
        return {"layers": [c.layer for c in self.components],
                "sites": [c.site for c in self.components],
                "indices": [c.index for c in self.components]}

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> Ablation:
        """The ablation with this content."""
        return cls.of(map(Component, content["layers"], content["sites"], content["indices"]))

    def by_layer(self, site: Site) -> dict[int, list[int]]:
        """Layer → indices that are off at a site, ascending. Plain ints: it may cross processes."""
        layers: dict[int, list[int]] = {}
        for component in self.components:
            if component.site == site:
                layers.setdefault(component.layer, []).append(component.index)
        return layers

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where components are off, in canonical order."""
        return tuple(sorted({component.site for component in self.components}))

    def __len__(self) -> int:
        return len(self.components)

    def check(self, info: ModelInfo) -> None:
        """Raise :class:`UserError` if a component does not exist in a model."""
        sites = adapter_for(info.model_type).sites
        for component in self.components:
            if not (component.site in sites and 0 <= component.layer < info.layers
                    and 0 <= component.index < info.components(component.site)):
                known = ", ".join(f"{info.components(site)} each at {site}" for site in sites)
                raise UserError(
                    f"component {component.layer}.{component.site}.{component.index} is not in a "
                    f"model of {info.layers} layers with {known}"
                )

    @contextmanager
    def applied(self, loaded: Loaded) -> Iterator[Loaded]:
        """The same model, with masks as hooks on its projections."""
        with ActivationMasks(loaded) as masks:
            masks.set(self)
            yield loaded

    def written(self, info: ModelInfo) -> PreTrainedModel:
        """The model with zeros in its weights, and the same shapes; see :func:`switch_off`."""
        from prunelib.models.loading import load_weights

        model = load_weights(info, "auto")
        switch_off(model, info, self)
        return model


BASELINE = Ablation()


def switch_off(model: PreTrainedModel, info: ModelInfo, ablation: Ablation) -> None:
    """Zero the weights of an ablation's components, in place.

    Zero are the input columns of the MLP's output projection, or the rows of another projection,
    with their biases except at ``mlp_row``, so plain transformers and plain vLLM compute what an
    engine computes under the ablation.
    """
    import torch

    adapter = adapter_for(info.model_type)
    with torch.no_grad():
        for component in ablation.components:
            path, enters = adapter.place(component.site)
            projection: Any = adapter.layers(model)[component.layer].get_submodule(path)
            outputs = output_dim(projection)
            span = info.span(component.site)
            first = component.index * span
            projection.weight.narrow(1 - outputs if enters else outputs, first, span).zero_()
            if not enters and component.site != "mlp_row" and projection.bias is not None:
                projection.bias[first : first + span] = 0


class ActivationMasks:
    """Hooks on the projections where a model's components are switched off, as a context manager.

    Without masks the hooks return nothing, so the untouched model computes exactly what it
    computes without them. Leaving the context removes every hook, whatever was raised.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._masks: dict[tuple[int, Site], Tensor] = {}
        self._handles: list[RemovableHandle] = []
        for i, layer in enumerate(loaded.adapter.layers(loaded.model)):
            for site in loaded.adapter.sites:
                path, enters = loaded.adapter.place(site)
                projection = layer.get_submodule(path)
                self._handles.append(
                    projection.register_forward_pre_hook(self._on_input((i, site)))
                    if enters
                    else projection.register_forward_hook(self._on_output((i, site))))

    def _on_input(self, place: tuple[int, Site]) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            mask = self._masks.get(place)
            return None if mask is None else (_masked(args[0], mask), *args[1:])

        return hook

    def _on_output(self, place: tuple[int, Site]) -> Any:
        def hook(projection: nn.Module, _: object, output: Tensor) -> Tensor | None:
            mask = self._masks.get(place)
            if mask is None:
                return None
            return _masked(output, mask, projection.bias if place[1] == "mlp_row" else None)

        return hook

    def set(self, ablation: Ablation) -> None:
        """Switch every row of every batch to this ablation."""
        import torch

        info = self._loaded.info
        ablation.check(info)
        weight = next(self._loaded.model.parameters())
        self._masks = {}
        for site in ablation.sites:
            for layer, indices in ablation.by_layer(site).items():
                mask = torch.ones(info.components(site), dtype=weight.dtype, device=weight.device)
                mask[indices] = 0
                self._masks[layer, site] = mask.repeat_interleave(info.span(site))

    def set_rows(self, layer: int, keep: Tensor, site: Site) -> None:
        """Give every batch row its own mask in one layer: ``keep`` is ``[rows, components]``."""
        span = self._loaded.info.span(site)
        self._masks = {(layer, site): keep.repeat_interleave(span, dim=1)}

    def __enter__(self) -> ActivationMasks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._masks = {}
        for handle in self._handles:
            handle.remove()


def _masked(values: Tensor, mask: Tensor, bias: Any = None) -> Tensor:
    """``values`` times a mask for all rows ``[width]``, or for each row ``[rows, width]``.

    A ``bias`` is a part of the values that the mask leaves alone. OPT's values have rows and
    positions in one dimension.
    """
    rows, mask = values, mask.to(values.device)
    if mask.dim() == 2:
        rows, mask = values.reshape(len(mask), -1, mask.shape[1]), mask[:, None, :]
    masked = rows * mask if bias is None else rows * mask + bias * (1 - mask)
    return masked.reshape(values.shape)
