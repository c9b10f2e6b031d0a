"""What prunelib needs to know of an architecture, and nothing more.

A family is one small adapter: where its layers are, which projection's outputs are scaled by
attribution, and where a neuron is switched off. Paths are the same in transformers and in vLLM.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from prunelib.components import Site
from prunelib.errors import UserError
from prunelib.models.head_layout import Heads

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel


def _nothing(_: Any) -> None:
    return None


def _never(_: Any) -> bool:
    return False


@dataclass(frozen=True)
class Adapter:
    """One architecture family. Stateless; models are passed in.

    Attributes:
        model_types: values of ``model_type`` in ``config.json`` that this adapter serves.
        stack: dotted path of the list of decoder layers, from the model.
        hidden: projections below a layer whose outputs are its neurons; attribution scales the
            first one (formulas.md §1.4).
        switched: projection below a layer at which a neuron is switched off: what enters it for
            ``mlp_hidden``, what leaves it for ``mixer_in``, ``mlp_out`` and ``ffn``.
        width: number of neurons of a layer, from the config.
        bias: whether the projections of its MLP have biases, from the config.
        attention: module below a layer that runs before its MLP, if there is one.
        mlp_norm: norm below a layer whose output only the MLP reads, if the MLP can be given the
            last position alone.
        site: the kind of neuron that the papers' projection has. A family with an MLP (one with
            ``attention``) also has neurons at ``mlp_out`` and is itself the component of ``ffn``.
        tuples: whether a layer returns a tuple, its output first.
        heads: where its attention heads are, if it has any.
        final_norm: norm between the last layer and the unembedding, from the model, if what a
            head gives enters the stream as it leaves the attention.
        refusal: why a model with this config is not supported, or ``None``.
        not_in_vllm: why vLLM does not run a model with this config, or computes something else,
            or ``None``.
        vllm_needs_gpu: whether vLLM has kernels for it on a GPU only.
        cpu_gradients: what its passes run in where gradients are computed on a CPU.
    """

    model_types: tuple[str, ...]
    stack: str
    hidden: tuple[str, ...]
    switched: str
    width: Callable[[PreTrainedConfig], int]
    bias: Callable[[PreTrainedConfig], bool] = _never
    attention: str | None = None
    mlp_norm: str | None = None
    site: Site = "mlp_hidden"
    tuples: bool = False
    heads: Heads | None = None
    final_norm: str | None = None
    refusal: Callable[[PreTrainedConfig], str | None] = _nothing
    not_in_vllm: Callable[[PreTrainedConfig], str | None] = _nothing
    vllm_needs_gpu: bool = False
    cpu_gradients: Callable[[], AbstractContextManager[None]] = nullcontext

    @property
    def unscaled(self) -> tuple[str, ...]:
        """Modules below a layer whose outputs do not change while its neurons are scaled.

        None where neurons are switched off at the scaled projection itself.
        """
        return () if self.attention is None else (self.attention, *self.hidden)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where this family's components can be switched off.

        A gated MLP has no ``mlp_row``: hardly any has biases, and vLLM merges its projections.
        """
        if self.attention is None:
            return (self.site,)
        row: tuple[Site, ...] = ("mlp_row",) if len(self.hidden) == 1 else ()
        return (self.site, *row, "mlp_out", "ffn", *(("head",) if self.heads else ()))

    def place(self, site: Site) -> tuple[str, bool]:
        """Where components of a site are switched off.

        Dotted path of a projection below a layer, and whether components are (slices of) what
        enters it, else of what leaves it.
        """
        if site == "head" and self.heads is not None:
            return self.heads.out, True
        if site == "mlp_row":
            return self.hidden[0], False
        return self.switched, site == "mlp_hidden"

    def untouched(self, site: Site) -> tuple[str, ...]:
        """Modules below a layer whose outputs do not change when components of a site do."""
        if site == "head":
            return ()
        return self.unscaled[:1] if site == "mlp_row" else self.unscaled

    def projection(self, name: Literal["gate", "up", "down"] | None) -> tuple[str, Site]:
        """Dotted path of a projection below a layer, and the site of its outputs.

        ``None`` is the papers' projection. Raises :class:`UserError` if there is no such one.
        """
        if name is None or (name == "up" and len(self.hidden) == 1 and self.attention):
            return self.hidden[0], self.site
        if name == "down" and self.attention:
            return self.switched, "mlp_out"
        if name == "down" or len(self.hidden) == 1:
            raise UserError(f"an MLP of '{self.model_types[0]}' has no projection '{name}'")
        return self.hidden[("gate", "up").index(name)], self.site

    def depth(self, config: PreTrainedConfig) -> int:
        """Number of layers."""
        return int(config.num_hidden_layers)

    def layers(self, model: PreTrainedModel) -> nn.ModuleList:
        """The list of decoder layers."""
        return cast("nn.ModuleList", model.get_submodule(self.stack))

    def set_layers(self, model: PreTrainedModel, layers: nn.ModuleList) -> None:
        """Replace the list of decoder layers (for prefix replay)."""
        parent, _, name = self.stack.rpartition(".")
        setattr(model.get_submodule(parent), name, layers)


def output_dim(projection: nn.Module) -> int:
    """Dimension of a projection's weight that counts its outputs: 1 for GPT-2's Conv1D."""
    from transformers.pytorch_utils import Conv1D

    return 1 if isinstance(projection, Conv1D) else 0
