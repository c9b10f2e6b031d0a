"""Where the attention heads of a family are. A head is a query head, also where keys are shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Heads:
    """The attention heads of one architecture family. Stateless; configs and tensors are passed in.

    Attributes:
        out: projection below a layer that the concatenated outputs of the heads enter; head h is
            the slice ``[h * size, (h + 1) * size)`` of its input.
        value: projection below a layer whose output holds the values.
        layout: how it holds them: nothing else is in it (``own``), queries, keys and values follow
            each other (``thirds``), or they do so within each head (``interleaved``).
        position: how attention knows positions: keys and queries are rotated (``rotary``), scores
            get a bias (``alibi``), or the stream carries them (``learned``).
    """

    out: str
    value: str
    layout: Literal["own", "thirds", "interleaved"]
    position: Literal["rotary", "alibi", "learned"]

    def count(self, config: PreTrainedConfig) -> int:
        """Query heads of a layer."""
        return int(config.num_attention_heads)

    def groups(self, config: PreTrainedConfig) -> int:
        """Key and value heads of a layer; each serves ``count / groups`` successive query heads."""
        return int(getattr(config, "num_key_value_heads", None) or self.count(config))

    def size(self, config: PreTrainedConfig) -> int:
        """Dimensions of a head's output."""
        own = getattr(config, "head_dim", None)
        return int(own or config.hidden_size // self.count(config))

    def values(self, projected: Tensor, config: PreTrainedConfig) -> Tensor:
        """The value that each query head reads at each position.

        Args:
            projected: output of the projection ``value``, ``[rows, positions, ...]``.
            config: of the model.

        Returns:
            ``[rows, positions, heads, size]``.
        """
        count, groups, size = self.count(config), self.groups(config), self.size(config)
        rows, positions = projected.shape[:2]
        if self.layout == "interleaved":
            return projected.reshape(rows, positions, count, 3, size)[..., 2, :]
        own = projected[..., -groups * size:].reshape(rows, positions, groups, size)
        return own.repeat_interleave(count // groups, dim=2)
