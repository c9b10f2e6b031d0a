"""The control that is not pruning: full fine-tuning on the samples that pruning has seen.

The DSM paper compares with it (SST-2 89.0, SST-5 48.9 on the same 10 samples with all parameters,
formulas.md §2.3); its optimiser, learning rate and number of steps are not known.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from prunelib.errors import UserError
from prunelib.identity import digest, seed_of
from prunelib.interventions.base import Intervention
from prunelib.models import Loaded, ModelInfo, load
from prunelib.recipe.controls import FineTuningSpec
from prunelib.tasks.tokenization import PAD, continuation, token_ids

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

#: Token ids of a prompt, and those of its answer.
Sample = tuple[Sequence[int], Sequence[int]]


@dataclass(frozen=True)
class FineTuning(Intervention):
    """Full fine-tuning on some prompts and their answers.

    Attributes:
        samples: prompts and answers as text, in the order in which they are given.
        settings: as the recipe has them.
        templated: whether a chat template wrote the prompts, and with them all special tokens.
    """

    kind: ClassVar[str] = "fine_tuning"
    trains: ClassVar[bool] = True

    samples: tuple[tuple[str, str], ...]
    settings: FineTuningSpec
    templated: bool = False

    @functools.cached_property
    def digest(self) -> str:  # type: ignore[override]
        """Content digest, by which every table names the intervention."""
        return digest("fine-tuning", self.content())

    def content(self) -> dict[str, Any]:
        """Samples and settings."""
        return {"samples": [list(sample) for sample in self.samples],
                "settings": self.settings.model_dump(mode="json"),
                **({"templated": True} if self.templated else {})}

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> FineTuning:
        """The fine-tuning with this content."""
        return cls(tuple((prompt, answer) for prompt, answer in content["samples"]),
                   FineTuningSpec.model_validate(content["settings"]),
                   content.get("templated", False))

    def check(self, info: ModelInfo) -> None:
        """Raise :class:`UserError` if there is nothing to tune on."""
        if not self.samples:
            raise UserError("fine-tuning needs at least one sample")

    @contextmanager
    def applied(self, loaded: Loaded) -> Iterator[Loaded]:
        """A model of its own, tuned from the weights on disk; it takes memory beside ``loaded``.

        Raises :class:`~prunelib.errors.UnitError` if the tokenizer merges the end of a prompt
        with its answer.
        """
        yield self._tuned(loaded.info, loaded.tokenizer,
                          str(loaded.model.dtype).removeprefix("torch."))

    def written(self, info: ModelInfo) -> PreTrainedModel:
        """The tuned model, in the dtype of the checkpoint."""
        from prunelib.models.loading import load_tokenizer, load_weights

        dtype = str(load_weights(info, "auto").dtype).removeprefix("torch.")
        return self._tuned(info, load_tokenizer(info), dtype).model

    def _tuned(self, info: ModelInfo, tokenizer: Any, dtype: str) -> Loaded:
        samples = [(tuple(token_ids(prompt, tokenizer, self.templated)),
                    continuation(prompt, answer, tokenizer, self.templated))
                   for prompt, answer in self.samples]
        return fine_tune(info, samples, self.settings, dtype)


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

    model = loaded.model
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=0.0)
    for batch in _batches(samples, settings):
        ids, mask, labels = _padded(batch, loaded.device)
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


def _padded(batch: Sequence[Sample], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and labels, each ``[rows, longest]``; −100 where nothing is to be learned.

    Padding is on the right, where no token of a sample looks.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    rows = [torch.tensor([*prompt, *answer], device=device) for prompt, answer in batch]
    ids = pad_sequence(rows, batch_first=True, padding_value=PAD)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    labels = pad_sequence(rows, batch_first=True, padding_value=-100)
    for row, (prompt, _) in zip(labels, batch, strict=True):
        row[: len(prompt)] = -100
    return ids, mask, labels
