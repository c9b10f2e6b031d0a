"""How the rows of a grid go on after their first token, each under its own mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prunelib.attribution.prefix_replay import KeysAndValues, last_logits
from prunelib.components import Site
from prunelib.interventions.ablation import ActivationMasks
from prunelib.models import Loaded
from prunelib.tasks.tokenization import Batch, Encoded, pad_left

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache


@dataclass
class Continuing:
    """Ablation × prompt rows, by ablation, then by prompt, after their first token.

    A row reads only the token that it wrote last: the keys and values of all before were kept.
    Where a family keeps none (``kept`` is ``None``), a row reads its whole text again.

    Attributes:
        keep: ones and zeros at ``site`` of ``layer``, ``[ablations, components]``.
        batch: the prompts, which every ablation shares.
    """

    loaded: Loaded
    layer: int
    site: Site
    keep: Tensor
    prompts: Sequence[Encoded]
    batch: Batch
    kept: KeysAndValues | None
    _rows: list[int] = field(default_factory=list)
    _cache: DynamicCache | None = None

    def after(self, rows: list[int], answers: Sequence[Sequence[int]]) -> Tensor:
        """Logits after the answers of some rows, each a token longer than at the last call.

        Rows are ascending, and among those of the last call. ``[rows, vocabulary]``.
        """
        with ActivationMasks(self.loaded) as masks:
            masks.set_rows(self.layer, self.keep[[row // len(self.prompts) for row in rows]],
                           self.site)
            if self.kept is None:
                texts = [[*self.prompts[row % len(self.prompts)].prompt, *answers[row]]
                         for row in rows]
                return last_logits(self.loaded, pad_left(texts, self.loaded.device))
            self._select(self.kept, rows)
            return last_logits(self.loaded, self._last(rows, answers), self._cache)

    def _select(self, kept: KeysAndValues, rows: list[int]) -> None:
        import torch

        device = self.loaded.device
        if self._cache is None:
            self._cache = kept.rows(torch.tensor(rows, device=device), len(self.prompts))
        elif rows != self._rows:
            places = {row: place for place, row in enumerate(self._rows)}
            self._cache.batch_select_indices(
                torch.tensor([places[row] for row in rows], device=device))
        self._rows = list(rows)

    def _last(self, rows: Sequence[int], answers: Sequence[Sequence[int]]) -> Batch:
        """The last token of each row, with a mask that covers all before it."""
        import torch

        device = self.loaded.device
        which = torch.tensor([row % len(self.prompts) for row in rows], device=device)
        length = len(answers[rows[0]])
        mask = self.batch.mask[which]
        mask = torch.cat([mask, mask.new_ones(len(rows), length)], dim=1)
        return Batch(torch.tensor([[answers[row][-1]] for row in rows], device=device), mask,
                     self.batch.positions[which, -1:] + length)
