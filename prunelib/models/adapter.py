"""What prunelib needs to know of an architecture, and nothing more.

A family is one small adapter: where its layers are, which projection's output units are scaled
by attribution, and which projection's input a hidden unit enters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel


class Adapter(Protocol):
    """One architecture family. Stateless; models are passed in."""

    @property
    def model_types(self) -> tuple[str, ...]:
        """``model_type`` values of ``config.json`` that this adapter serves."""
        ...

    @property
    def output_projection(self) -> str:
        """Dotted path of the output projection below a layer, in transformers and in vLLM."""
        ...

    @property
    def mlp_norm(self) -> str:
        """Dotted path below a layer of the norm whose output only the MLP reads."""
        ...

    @property
    def unscaled(self) -> tuple[str, ...]:
        """Modules below a layer whose outputs do not change while its neurons are scaled."""
        ...

    def depth(self, config: PreTrainedConfig) -> int:
        """Number of layers."""
        ...

    def width(self, config: PreTrainedConfig) -> int:
        """Number of ``mlp_hidden`` units of a layer."""
        ...

    def layers(self, model: PreTrainedModel) -> nn.ModuleList:
        """The list of decoder layers."""
        ...

    def set_layers(self, model: PreTrainedModel, layers: nn.ModuleList) -> None:
        """Replace the list of decoder layers (for prefix replay)."""
        ...

    def scaled_projection(self, model: PreTrainedModel, layer: int) -> nn.Module:
        """The projection whose output units attribution scales (papers.md §1.4)."""
        ...
