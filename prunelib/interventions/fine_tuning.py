"""The control that is not pruning: full fine-tuning on the samples that pruning has seen.

The DSM paper compares with it (SST-2 89.0, SST-5 48.9 on the same 10 samples with all parameters,
papers.md §2.3); its optimiser, learning rate and number of steps are not known.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from prunelib.errors import UserError
from prunelib.identity import digest, seed_of
from prunelib.models import Loaded, ModelInfo, load
from prunelib.recipe.base import FineTuningSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Token ids of a prompt, and those of its answer.
Sample = tuple[Sequence[int], Sequence[int]]


def fine_tune(
    info: ModelInfo, samples: Sequence[Sample], settings: FineTuningSpec, dtype: str = "float32"
) -> Loaded:
    """A model of its own, fine-tuned on ``samples``, in ``dtype``.

    Training runs in float32, since steps of this size vanish in the rounding of bfloat16; that
    takes 16 bytes per parameter. The same samples and settings give the same weights, to the
    last bit on a CPU with the same number of threads. ``info`` of what is returned has its own
    weights digest, while its path stays that of the base model: the weights are in memory only.

    Raises:
        UserError: there are no samples.
    """
    import torch

    if not samples:
        raise UserError("fine-tuning needs at least one sample")
    tuned = load(info, "float32")
    _train(tuned, samples, settings)
    if dtype != "float32":
        rounded = load(info, dtype)
        with torch.no_grad():
            for parameter, trained in zip(rounded.model.parameters(), tuned.model.parameters(),
                                          strict=True):
                parameter.copy_(trained)
        tuned = rounded
    done = [info.weights_digest, settings.model_dump(), [[list(p), list(a)] for p, a in samples]]
    return replace(tuned, info=replace(info, weights_digest=digest("fine-tuned", done)))


def _train(loaded: Loaded, samples: Sequence[Sample], settings: FineTuningSpec) -> None:
    """AdamW on the mean negative log-likelihood of a batch's answer tokens, in place.

    The model stays in evaluation mode: dropout would add a second source of chance.
    """
    import torch

    model, pad = loaded.model, int(loaded.tokenizer.pad_token_id)
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=0.0)
    for batch in _batches(samples, settings):
        ids, mask, labels = _padded(batch, pad, loaded.device)
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
            loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    model.requires_grad_(False)


def _batches(samples: Sequence[Sample], settings: FineTuningSpec) -> Iterator[list[Sample]]:
    """Every sample once per epoch, in a seeded order of that epoch."""
    for epoch in range(settings.epochs):
        order = list(samples)
        random.Random(seed_of("fine-tuning", settings.seed, epoch)).shuffle(order)  # noqa: S311
        for start in range(0, len(order), settings.batch_size):
            yield order[start : start + settings.batch_size]


def _padded(batch: Sequence[Sample], pad: int, device: torch.device
            ) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and labels, each ``[rows, longest]``; −100 where nothing is to be learned.

    Padding is on the right, where no token of a sample looks.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    rows = [torch.tensor([*prompt, *answer], device=device) for prompt, answer in batch]
    ids = pad_sequence(rows, batch_first=True, padding_value=pad)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    labels = pad_sequence(rows, batch_first=True, padding_value=-100)
    for row, (prompt, _) in zip(labels, batch, strict=True):
        row[: len(prompt)] = -100
    return ids, mask, labels
