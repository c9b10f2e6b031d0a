"""Parts of a loaded model with which its attention heads are read and changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from prunelib.errors import UserError
from prunelib.models.adapter import output_dim
from prunelib.models.head_layout import Heads
from prunelib.models.loading import Loaded

if TYPE_CHECKING:
    from torch import Tensor, nn


def heads_of(loaded: Loaded) -> Heads:
    """Where the attention heads are; :class:`UserError` if the model has none."""
    if loaded.adapter.heads is None:
        raise UserError(f"model '{loaded.info.id}' has no attention heads: leave it out")
    return loaded.adapter.heads


def out_columns(loaded: Loaded, layer: int) -> Tensor:
    """What each dimension of each head adds to the stream, without bias: ``[heads, size, width]``.

    Raises :class:`UserError` if the model has no attention heads.
    """
    out = loaded.adapter.layers(loaded.model)[layer].get_submodule(heads_of(loaded).out)
    weight: Any = out.weight
    columns: Tensor = weight if output_dim(out) else weight.T
    return columns.reshape(loaded.info.heads, loaded.info.head_size, -1)


def unembedding(loaded: Loaded) -> Any:
    """The projection from the final norm's output to logits."""
    model: Any = loaded.model
    return model.get_output_embeddings()


def final_norm(loaded: Loaded) -> nn.Module:
    """The norm before the unembedding.

    Raises :class:`UserError` for models without one, and where a head's output is not added to
    the stream as it is or the unembedding does not read the norm's output.
    """
    parent, _, name = (loaded.adapter.final_norm or "").rpartition(".")
    found = getattr(loaded.model.get_submodule(parent), name, None) if name else None
    if found is None or unembedding(loaded).weight.shape[1] != loaded.info.stream:
        raise UserError(f"model '{loaded.info.id}' does not have one final norm between the sum of "
                        "its heads' outputs and its unembedding, by which one head's output "
                        "could be read: leave it out")
    norm: nn.Module = found
    return norm


@contextmanager
def eager_attention(loaded: Loaded) -> Iterator[None]:
    """Within the context attention gives its probabilities."""
    before = loaded.model.config._attn_implementation
    loaded.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        loaded.model.set_attn_implementation(before)


class LastAttention:
    """What the last position of prompts attends to in some layers, in each forward pass.

    Attributes:
        attention: layer → probabilities of the last position, ``[rows, heads, positions]``.
        values: layer → the values that each head reads, ``[rows, positions, heads, size]``.
    """

    def __init__(self) -> None:
        self.attention: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    @contextmanager
    def reading(self, loaded: Loaded, layers: Iterable[int]) -> Iterator[None]:
        """Within the context every forward pass is read, in eager attention.

        Raises :class:`UserError` if the model has no attention heads.
        """
        heads, attention = heads_of(loaded), loaded.adapter.attention
        assert attention is not None  # noqa: S101

        def read_attention(layer: int) -> Any:
            def hook(_: nn.Module, __: object, output: tuple[Any, ...]) -> None:
                self.attention[layer] = output[1][:, :, -1]
            return hook

        def read_values(layer: int) -> Any:
            def hook(_: nn.Module, __: object, projected: Tensor) -> None:
                self.values[layer] = heads.values(projected, loaded.model.config)
            return hook

        with ExitStack() as stack:
            stack.enter_context(eager_attention(loaded))
            for i in layers:
                layer = loaded.adapter.layers(loaded.model)[i]
                for path, hook in ((attention, read_attention(i)), (heads.value, read_values(i))):
                    handle = layer.get_submodule(path).register_forward_hook(hook)
                    stack.callback(handle.remove)
            yield

    def weighted(self, loaded: Loaded, layer: int, head: int) -> Tensor:
        """Weighted value-output vectors of a head, ``[rows, positions, width]``.

        At each position the attention that the last one pays to it, times what its value becomes
        in the head's columns of the out-projection, without bias (formulas.md §4.3). Their sum over
        positions is what the head adds to the stream at the last position.
        """
        value_outputs = self.values[layer][:, :, head] @ out_columns(loaded, layer)[head]
        return self.attention[layer][:, head, :, None] * value_outputs
