"""Random sequences on which the induction scores of heads are read (formulas.md §3.3)."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelib.errors import UserError
from prunelib.identity import seed_of

if TYPE_CHECKING:
    from prunelib.models import Loaded

#: Share of the vocabulary that is left out at either end: the most and the least frequent tokens.
EXCLUDED = 0.04


@dataclass(frozen=True)
class RandomSequence:
    """A block of different tokens, once or several times.

    Attributes:
        start: what comes before the first block: BOS, or nothing.
        block: token ids, each of them once.
        repeats: how often the block is there.
    """

    start: tuple[int, ...]
    block: tuple[int, ...]
    repeats: int

    @property
    def ids(self) -> tuple[int, ...]:
        """All token ids."""
        return (*self.start, *self.block * self.repeats)


def draw_sequences(loaded: Loaded, count: int, repeats: int, seed: int = 0
                   ) -> list[RandomSequence]:
    """Draw sequences of growing length (formulas.md §3.3).

    Tokens are drawn without replacement from the vocabulary without special and other added
    tokens, and without 4% of the ids at either end (ids of a BPE vocabulary are in the order of
    its merges, so these are the most and the least frequent tokens). BOS comes first where the
    tokenizer has one. A draw depends on the seed, its number and the vocabulary alone.

    The paper's sequence number i = 0, 1, … has 4·(2i + 25) tokens: four times the same block, or
    one block of that length. Where that is more different tokens than there are, or more tokens
    than the model's context holds, the block is cut to as many as fit: with a small vocabulary
    most sequences then have the same length and differ in their order.

    Args:
        loaded: whose tokens are meant.
        count: how many sequences; the paper has 100.
        repeats: blocks of a sequence; 4 for prefix matching, 1 for copying.
        seed: of the draw.

    Raises:
        UserError: there is nothing to draw, or the vocabulary or the context has no room for two
            different tokens.
    """
    if count < 1 or repeats < 1:
        raise UserError(f"{count} sequences of {repeats} blocks: ask for at least one of each")
    pool = ordinary_tokens(loaded)
    bos = loaded.tokenizer.bos_token_id
    start = () if bos is None else (int(bos),)
    context = getattr(loaded.model.config, "max_position_embeddings", None) or sys.maxsize
    longest = min(len(pool), (int(context) - len(start)) // repeats)
    if longest < 2:
        raise UserError(f"model '{loaded.info.id}' has {len(pool)} ordinary tokens and a context "
                        f"of {context}, too few for {repeats} blocks of random tokens")
    return [
        RandomSequence(start, tuple(_rng(seed, i).sample(pool, length)), repeats)
        for i in range(count)
        for length in [min(4 * (2 * i + 25) // repeats, longest)]
    ]


def ordinary_tokens(loaded: Loaded) -> list[int]:
    """Ids from which random tokens are drawn, ascending."""
    tokenizer = loaded.tokenizer
    # A tokenizer may have ids beyond the embedding; added tokens were never merged.
    known = int(loaded.model.config.vocab_size)
    left_out = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ids = sorted(i for i in set(tokenizer.get_vocab().values()) - left_out if i < known)
    ends = int(EXCLUDED * len(ids))
    return ids[ends : len(ids) - ends]


def _rng(seed: int, number: int) -> random.Random:
    return random.Random(seed_of("random tokens", seed, number))  # noqa: S311
