"""What passes through a model while it reads prompts: logits, and hidden states at a place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from prunelib.components import Site
from prunelib.engines.base import Prompt
from prunelib.engines.limits import model_limits, prompt_error
from prunelib.errors import UserError, unknown_name
from prunelib.models import Loaded
from prunelib.tasks.tokenization import pad_left

if TYPE_CHECKING:
    from torch import Tensor

#: Where hidden states are read: what leaves a layer, or where components are switched off.
Place = Site | Literal["stream"]
Floats = NDArray[np.float32]
#: Prompts of one forward pass.
ROWS = 16


def next_logits(loaded: Loaded, prompts: Sequence[Sequence[int]]) -> Floats:
    """Logits of the next token of each prompt, ``[prompts, vocabulary]``."""
    return np.concatenate([_floats(logits) for _, logits in _passes(loaded, prompts)])


def hidden_states(loaded: Loaded, prompts: Sequence[Sequence[int]], layer: int, place: Place
                  ) -> list[Floats]:
    """What passes a place at each token of each prompt, ``[tokens, width]``.

    At ``head``: ``[tokens, heads, head size]``.

    Raises:
        UserError: the model has no such layer or place.
    """
    info = loaded.info
    if not 0 <= layer < info.layers:
        raise UserError(f"model '{info.id}' has layers 0 to {info.layers - 1}, no layer {layer}")
    places = (*loaded.adapter.sites, "stream")
    if place not in places:
        raise unknown_name(f"place of model '{info.id}'", place, places)
    found: list[Floats] = []
    with _reading(loaded, layer, place) as seen:
        for rows, _ in _passes(loaded, prompts):
            values = seen.pop()  # rows and positions of OPT's are one dimension
            values = values.reshape(len(rows), -1, values.shape[-1])
            for row, of_row in zip(rows, values, strict=True):
                states = _floats(of_row[-len(row):])
                found.append(states.reshape(len(row), info.heads, -1) if place == "head"
                             else states)
    return found


@contextmanager
def _reading(loaded: Loaded, layer: int, place: Place) -> Iterator[list[Tensor]]:
    """Within the context every forward pass leaves here what passes the place.

    The hooks come after those of an intervention, so that what is read is what it leaves.
    """
    seen: list[Tensor] = []
    module = loaded.adapter.layers(loaded.model)[layer]
    path, enters = ("", False) if place == "stream" else loaded.adapter.place(place)

    def entering(_: Any, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0])

    def leaving(_: Any, __: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    part = module.get_submodule(path)
    handle = (part.register_forward_pre_hook(entering) if enters
              else part.register_forward_hook(leaving))
    try:
        yield seen
    finally:
        handle.remove()


def _passes(loaded: Loaded, prompts: Sequence[Sequence[int]]
            ) -> Iterator[tuple[Sequence[Sequence[int]], Tensor]]:
    """Prompts of each forward pass, and the logits ``[rows, vocabulary]`` at their ends."""
    import torch

    for i, prompt in enumerate(prompts):
        if error := prompt_error(Prompt(tuple(prompt), 1), *model_limits(loaded.info)):
            raise UserError(f"prompt {i}: {error}")
    for start in range(0, len(prompts), ROWS):
        rows = prompts[start : start + ROWS]
        with torch.inference_mode():
            logits = loaded.model(**pad_left(rows, loaded.device).inputs(), use_cache=False,
                                  logits_to_keep=1).logits[:, -1]
        yield rows, logits


def _floats(values: Tensor) -> Floats:
    found: Floats = values.float().cpu().numpy()
    return found
