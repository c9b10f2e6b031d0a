"""Random bfloat16 models of a Llama's shape, random prompts, and what passes through them cost.

Operations are counted from shapes: two for each multiplication with a weight, in matrix products
alone, and only what has to be computed, whatever an implementation does beside it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from prunelib.models import Loaded, ModelInfo, adapter_for
from prunelib.tasks.tokenization import Encoded


@dataclass(frozen=True)
class Shape:
    """A Llama's dimensions; ``query`` and ``key`` are heads, of ``hidden / query`` dimensions."""

    name: str
    layers: int
    hidden: int
    inner: int
    query: int
    key: int
    vocabulary: int

    @property
    def linear(self) -> int:
        """Operations of a layer's projections for one token, forward."""
        kept = self.hidden * self.key // self.query
        return 2 * (2 * self.hidden * self.hidden + 2 * self.hidden * kept) + self.mlp

    @property
    def mlp(self) -> int:
        """Operations of a layer's MLP for one token, forward."""
        return 6 * self.hidden * self.inner

    def attention(self, tokens: int) -> int:
        """Operations of a layer's attention products for one of ``tokens`` tokens, forward."""
        return 4 * tokens * self.hidden

    def prefix(self, layer: int, prompts: int, tokens: int) -> int:
        """Operations below a layer and of its attention, gate and up projections."""
        each = self.linear + self.attention(tokens)
        return prompts * tokens * (layer * each + each - 2 * self.hidden * self.inner)

    def replayed(self, layer: int, rows: int, tokens: int, backward: bool) -> int:
        """Operations from a layer's down projection to the logits after the last token.

        The last layer's MLP is needed at the last position only. Weights get no gradient, so a
        backward pass costs as much as a forward pass, and twice as much in attention products.
        """
        above = self.layers - layer - 1
        spared = (tokens - 1) * (self.mlp if above else 2 * self.hidden * self.inner)
        linear = rows * (tokens * (2 * self.hidden * self.inner + above * self.linear) - spared
                         + 2 * self.hidden * self.vocabulary)
        attention = rows * tokens * above * self.attention(tokens)
        return 2 * linear + 3 * attention if backward else linear + attention

    def further(self, rows: int, tokens: int) -> int:
        """Operations of one more token of each row, keys and values being kept."""
        return rows * (self.layers * (self.linear + self.attention(tokens))
                       + 2 * self.hidden * self.vocabulary)


LLAMA_8B = Shape("llama-3.1-8b", 32, 4096, 14336, 32, 8, 128256)
#: For a rehearsal on a CPU.
SMALL = Shape("small", 4, 64, 160, 4, 2, 512)


def random_llama(shape: Shape, device: str) -> Loaded:
    """A model of this shape with random weights, without a tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.inner,
        num_hidden_layers=shape.layers, num_attention_heads=shape.query,
        num_key_value_heads=shape.key, max_position_embeddings=8192,
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model: Any = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.eval().requires_grad_(False)
    info = ModelInfo(f"random/{shape.name}", "", "", "", "", "llama", shape.layers, shape.inner, 0,
                     shape.hidden, shape.query, shape.hidden // shape.query)
    tokenizer: Any = SimpleNamespace()
    return Loaded(info, model, tokenizer, adapter_for("llama"))


def random_prompts(shape: Shape, count: int, tokens: int) -> list[Encoded]:
    """Prompts of random tokens, each with a gold answer and three others of one token."""
    rng = random.Random(0)

    def some(many: int) -> tuple[int, ...]:
        return tuple(rng.randrange(1, shape.vocabulary) for _ in range(many))

    return [Encoded(some(tokens), some(1), tuple(some(1) for _ in range(3)))
            for _ in range(count)]
