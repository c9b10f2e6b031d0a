"""Prompts of two labels as token ids, and what a model says after them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prunelib.attribution.prefix_replay import last_logits
from prunelib.attribution.sampling import mean_error
from prunelib.errors import UnitError, UserError
from prunelib.models import Loaded
from prunelib.tasks import Example, Task
from prunelib.tasks.tokenization import Batch, answer_tokens, pad_left, token_ids

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Array = NDArray[np.float64]
#: Prompts of one forward pass. Fixed, so that results do not depend on the machine.
LABELLED_ROWS = 50


@dataclass(frozen=True)
class LabelledPrompt:
    """A prompt after which one of two tokens is expected.

    Attributes:
        ids: token ids, up to where the labels begin to differ (in most tokenizers the end of the
            prompt).
        labels: the tokens by which the two labels are told apart, there.
        gold: 0 or 1, which of them is right.
        places: position of that token in each demonstration, in order.
        shown: 0 or 1, which label each demonstration has.
        query: what is asked: prompts with the same one are not independent.
    """

    ids: tuple[int, ...]
    labels: tuple[int, int]
    gold: int
    places: tuple[int, ...]
    shown: tuple[int, ...]
    query: str

    @property
    def minority(self) -> tuple[tuple[int, ...], float]:
        """Places of the label with fewer demonstrations, and how many times more the other has.

        Places count from the end, so that they are the same in a batch padded on the left. No
        place where both have the same number, or one has none (formulas.md §4.4).
        """
        first = self.shown.count(0)
        counts = (first, len(self.shown) - first)
        if counts[0] == counts[1] or 0 in counts:
            return (), 1.0
        few = int(counts[1] < counts[0])
        return (tuple(place - len(self.ids) for place, label in
                      zip(self.places, self.shown, strict=True) if label == few),
                counts[1 - few] / counts[few])


def encode_labelled(
    task: Task, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase
) -> list[LabelledPrompt]:
    """Tokenise prompts of :func:`~prunelib.tasks.draw_labelled`.

    Raises:
        UserError: one of the two labels is the beginning of the other in this tokenizer.
        UnitError: the tokenizer merges across the end of a prompt or of a demonstration's input.
    """
    return [_encoded(task.options, example, tokenizer) for example in examples]


def _encoded(labels: Sequence[str], example: Example, tokenizer: Any) -> LabelledPrompt:
    prompt, tails = answer_tokens(example, labels, tokenizer)
    shared = 0
    while min(map(len, tails)) > shared and tails[0][shared] == tails[1][shared]:
        shared += 1
    if shared == min(map(len, tails)):
        raise UserError(f"label '{min(labels, key=len)}' is the beginning of the other one in this "
                        "tokenizer: choose other labels")
    places = []
    end = 0
    for x, y in example.demonstrations:
        end = example.prompt.index(example.lead + y + example.separator,
                                   example.prompt.index(x, end) + len(x))
        before = tuple(token_ids(example.prompt[:end], tokenizer))
        if prompt[: len(before)] != before:
            raise UnitError(f"the tokenizer merges a demonstration's input with its label {y!r}")
        places.append(len(before) + shared)
    return LabelledPrompt(
        ids=(*prompt, *tails[0][:shared]),
        labels=(tails[0][shared], tails[1][shared]),
        gold=list(labels).index(example.gold),
        places=tuple(places),
        shown=tuple(list(labels).index(y) for y in example.answers),
        query=example.query,
    )


def batched(loaded: Loaded, prompts: Sequence[LabelledPrompt]) -> Batch:
    """The prompts padded on the left."""
    return pad_left([prompt.ids for prompt in prompts], loaded.device)


def label_logprobs(
    loaded: Loaded,
    prompts: Sequence[LabelledPrompt],
    within: Callable[[Sequence[LabelledPrompt]], AbstractContextManager[object]] | None = None,
    rows: int = LABELLED_ROWS,
) -> Array:
    """Log-probabilities of both labels after each prompt, natural, over the whole vocabulary.

    Args:
        loaded: the model.
        prompts: from :func:`encode_labelled`.
        within: makes the context in which some of the prompts, one batch, are read: a mitigation.
        rows: prompts of a batch.

    Returns:
        ``[prompts, 2]``.
    """
    import torch

    found = []
    for start in range(0, len(prompts), rows):
        some = prompts[start : start + rows]
        with torch.inference_mode(), within(some) if within else nullcontext():
            logits = last_logits(loaded, batched(loaded, some))
        found.append(of_labels(logits, some))
    return np.concatenate(found)


def of_labels(logits: Tensor, prompts: Sequence[LabelledPrompt]) -> Array:
    """Log-probabilities of both labels, ``[rows, 2]``, from logits and the prompt of each row."""
    import torch

    labels = torch.tensor([prompt.labels for prompt in prompts], device=logits.device)
    found: Array = logits.double().log_softmax(-1).gather(1, labels).cpu().numpy()
    return found


def predicted(logprobs: Array) -> NDArray[np.intp]:
    """Which label is more probable, the first of equals: ``[prompts]`` of ``[prompts, 2]``."""
    return (logprobs[:, 1] > logprobs[:, 0]).astype(np.intp)


def right(prompts: Sequence[LabelledPrompt], logprobs: Array) -> NDArray[np.bool_]:
    """Whether the right label is the more probable one, ``[prompts]``."""
    found: NDArray[np.bool_] = predicted(logprobs) == np.array([prompt.gold for prompt in prompts])
    return found


def means_by_label(labels: NDArray[np.intp], values: Array, prompts: Sequence[LabelledPrompt]
                   ) -> tuple[Array, Array]:
    """Means of ``[prompts, …]`` over the prompts of each label, and standard errors by query.

    Returns:
        ``[2, …]`` each; nan for a label that no prompt has, an error also of one query.
    """
    means, errors = (np.full((2, *values.shape[1:]), np.nan) for _ in range(2))
    for label in np.unique(labels):
        of_label = labels == label
        means[label] = values[of_label].mean(0)
        errors[label] = mean_error(values[of_label], [
            prompt.query for prompt, kept in zip(prompts, of_label, strict=True) if kept])
    return means, errors
