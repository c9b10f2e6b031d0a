"""Contrastive pairs: one prompt with a right and with a wrong answer, and what they differ in.

Steering methods read a model at the last token of either text (formulas.md §5.6).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from prunelib.identity import seed_of
from prunelib.interventions.steering import PLACES, Place, reading
from prunelib.models import Loaded, ModelInfo, adapter_for
from prunelib.tasks import Example, Task, is_right
from prunelib.tasks.tokenization import pad_left, token_ids

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]
#: What the right answer is contrasted with: a ``wrong`` answer of the task, or one that is
#: ``copied`` from a demonstration.
Against = Literal["wrong", "copied"]
#: Texts of one forward pass. Fixed, so that results do not depend on the worker.
CONTRAST_ROWS = 64


@dataclass(frozen=True)
class Contrast:
    """What a model holds in some layers after right answers, minus what it holds after wrong ones.

    Attributes:
        layers: the layers, ascending.
        means: place → mean difference, ``[layers, width]``.
        accuracies: of a probe for each head on held-out pairs, ``[layers, heads]``; empty unless
            probes were fitted, like the other two.
        losses: of the same, mean negative log-likelihood (natural).
        spreads: standard deviation of a head's values along its mean difference.
        heads: of a layer.
    """

    layers: tuple[int, ...]
    means: dict[Place, Array]
    accuracies: Array
    losses: Array
    spreads: Array
    heads: int


def contrast_answers(task: Task, example: Example, against: Against) -> tuple[str, str] | None:
    """A right and a wrong answer to an example, or ``None`` if there is no wrong one.

    The wrong one is drawn, depending on nothing but the example: among the answers of the
    demonstrations (``copied``); else among the task's options, or the answers of the split.
    """
    if against == "copied":
        known: Sequence[str] = example.answers
    else:
        known = task.options or [y for part in task.parts or (task,)
                                 for _, y in part.split(example.split)]
    wrong = [y for y in dict.fromkeys(known) if not is_right(task, example, y)]
    if not wrong:
        return None
    seed = seed_of("wrong answers", task.name, example.split, example.seed, example.example)
    return example.gold, random.Random(seed).choice(wrong)  # noqa: S311


def contrast_texts(task: Task, example: Example, against: Against) -> tuple[str, str] | None:
    """The texts with a right and with a wrong answer; of a question with own choices, two of these.

    ``None`` if there is no wrong one.
    """
    if not example.choices or against == "copied":
        answers = contrast_answers(task, example, against)
        return answers and (example.prompt + example.lead + answers[0],
                            example.prompt + example.lead + answers[1])
    texts = [(choice.right, prompt + example.lead + choice.continuation)
             for choice, prompt in zip(example.choices, example.choice_prompts, strict=True)]
    right = [text for is_right, text in texts if is_right]
    wrong = [text for is_right, text in texts if not is_right]
    if not right or not wrong:
        return None
    seed = seed_of("wrong answers", task.name, example.split, example.seed, example.example)
    return right[0], random.Random(seed).choice(wrong)  # noqa: S311


def signs(examples: Sequence[Example], shuffled: bool) -> Array:
    """1 for each example, or, as a control, −1 for a random half of them, ``[examples]``."""
    return np.array([
        -1.0 if shuffled and seed_of("shuffled labels", e.task, e.seed, e.example) % 2 else 1.0
        for e in examples])


def places_of(info: ModelInfo) -> tuple[Place, ...]:
    """The places that a model has."""
    return tuple(place for place in PLACES
                 if place == "stream" or place in adapter_for(info.model_type).sites)


def last_values(loaded: Loaded, texts: Sequence[Sequence[int]], places: Sequence[Place],
                layers: Sequence[int], rows: int = CONTRAST_ROWS
                ) -> Iterator[dict[tuple[Place, int], Array]]:
    """What places of layers hold at the last token of each text, ``[texts, width]``, by batches."""
    import torch

    for start in range(0, len(texts), rows):
        batch = pad_left(texts[start : start + rows], loaded.device)
        with reading(loaded, places, layers) as found, torch.no_grad():
            loaded.model(**batch.inputs(), use_cache=False, logits_to_keep=1)
        yield {key: _array(values) for key, values in found.items()}


def _array(values: Tensor) -> Array:
    array: Array = values.double().cpu().numpy()
    return array


def differences(loaded: Loaded, pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
                places: Sequence[Place], layers: Sequence[int], rows: int = CONTRAST_ROWS
                ) -> Iterator[dict[tuple[Place, int], tuple[Array, Array]]]:
    """What places of layers hold after the right and after the wrong answers, by batches.

    ``pairs``: token ids of both texts. Yields (place, layer) → two of ``[pairs, width]``.
    """
    texts = [text for pair in pairs for text in pair]
    for found in last_values(loaded, texts, places, layers, rows - rows % 2):
        yield {key: (values[::2], values[1::2]) for key, values in found.items()}


def pair_ids(task: Task, examples: Sequence[Example], against: Against, tokenizer: Any
             ) -> list[tuple[list[int], list[int]]]:
    """Token ids of both texts of each example. ``ValueError`` if one has no wrong answer."""
    found = []
    for example in examples:
        texts = contrast_texts(task, example, against)
        if texts is None:
            raise ValueError(f"example {example.example} of '{task.name}' has no wrong answer")
        found.append(tuple(token_ids(text, tokenizer, example.templated) for text in texts))
    return found  # type: ignore[return-value]
