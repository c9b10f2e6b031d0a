"""Limits: where a completion ends, and which prompts a model cannot run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from prunelib.engines.base import Forced, Prompt
from prunelib.errors import UnitError
from prunelib.models.info import read_parsed
from prunelib.tasks.chat import turn_end_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from prunelib.models import ModelInfo

#: Context of a model that has no longest sequence.
ENDLESS = sys.maxsize

_STOPS: WeakKeyDictionary[PreTrainedTokenizerBase, list[int]] = WeakKeyDictionary()


def stop_token_ids(tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> list[int]:
    """Ids that end an answer: tokens whose text contains a newline, and all that end a turn.

    These are the tokenizer's end of sequence, what its chat template writes after an answer, and
    ``ends``, those that the model's configuration names. Ascending. Decoding a large vocabulary
    takes a second or two, so the answer is kept as long as the tokenizer lives.
    """
    if tokenizer not in _STOPS:
        ids = sorted(set(tokenizer.get_vocab().values()))
        texts = tokenizer.batch_decode([[i] for i in ids])
        stops = {i for i, text in zip(ids, texts, strict=True) if "\n" in text}
        _STOPS[tokenizer] = sorted(stops | set(turn_end_ids(tokenizer)))
    return sorted({*_STOPS[tokenizer], *end_token_ids(tokenizer, ends)})


def until_stop(token_ids: Sequence[int], stops: Sequence[int], max_tokens: int) -> tuple[int, ...]:
    """The first ``max_tokens`` ids, up to and without the first stop token."""
    kept: list[int] = []
    for token in token_ids[:max_tokens]:
        if token in stops:
            break
        kept.append(int(token))
    return tuple(kept)


def end_token_ids(tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> list[int]:
    """Ids that end a text: the tokenizer's end of sequence and ``ends``. Ascending."""
    own = tokenizer.eos_token_id
    return sorted({*ends} if own is None else {int(own), *ends})


def cut(text: str, until: Sequence[str] | None) -> str:
    """A text up to the first of some texts that end it."""
    for end in filter(None, until or ()):
        text = text.split(end, 1)[0]
    return text


def model_limits(info: ModelInfo) -> tuple[int, int]:
    """Context length in tokens, and the number of token ids that the embedding knows.

    BLOOM's ALiBi and Mamba's state have no end: :data:`ENDLESS`.
    """
    config = read_parsed(Path(info.path), info.trust_remote_code)
    context = getattr(config, "max_position_embeddings", None) or ENDLESS
    return int(context), int(config.vocab_size)


def prompt_error(prompt: Prompt, context: int, vocabulary: int, behind: int = 0) -> str | None:
    """What keeps this prompt from being run, or ``None``. Nothing is ever truncated.

    Args:
        prompt: the prompt.
        context: tokens that prompt and completion may have together.
        vocabulary: token ids must lie below it.
        behind: tokens to come that are not read, so may be behind the context.
    """
    if not prompt.token_ids:
        return "empty prompt"
    if prompt.max_tokens < 1:
        return f"max_tokens is {prompt.max_tokens}"
    if len(prompt.token_ids) + prompt.max_tokens > context + behind:
        return (
            f"too long: {len(prompt.token_ids)} tokens and {prompt.max_tokens} to come, in a "
            f"context of {context}"
        )
    if not 0 <= min(prompt.token_ids) <= max(prompt.token_ids) < vocabulary:
        return f"token ids outside the vocabulary of {vocabulary}"
    return None


def forced_texts(
    prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]], context: int,
    vocabulary: int, fill: bool = False,
) -> tuple[dict[tuple[int, ...], list[int]], dict[int, Forced]]:
    """What a model reads for teacher forcing, each text once.

    A text is a prompt and all of its continuation but the last token, which is only asked about.
    With ``fill`` it may fill the context.

    Returns:
        Text → places of the pairs that need it, and place → error of the pairs that cannot be
        scored.
    """
    texts: dict[tuple[int, ...], list[int]] = {}
    errors: dict[int, Forced] = {}
    for i, (prompt, continuation) in enumerate(zip(prompts, continuations, strict=True)):
        error = _forced_error(prompt, continuation, context, vocabulary, fill)
        if error is None:
            texts.setdefault((*prompt, *continuation[:-1]), []).append(i)
        else:
            errors[i] = Forced((), (), error)
    return texts, errors


def _forced_error(prompt: Sequence[int], continuation: Sequence[int], context: int,
                  vocabulary: int, fill: bool) -> str | None:
    """What keeps a continuation from being scored after a prompt, or ``None``.

    A model reads both up to the last token but one, and then gives the last one.
    """
    if not continuation:
        return "empty continuation"
    if not 0 <= continuation[-1] < vocabulary:
        return f"token ids outside the vocabulary of {vocabulary}"
    if not prompt:
        return "empty prompt"
    return prompt_error(Prompt((*prompt, *continuation[:-1]), 1), context, vocabulary, int(fill))


def check_scorable(
    prompts: Sequence[Sequence[int]],
    candidates: Sequence[Sequence[int]],
    context: int,
    vocabulary: int,
) -> None:
    """Raise :class:`UnitError` if the next token of a prompt, or a candidate, cannot be scored.

    A log-probability has no place for an error, so one bad prompt fails the call.
    """
    if len(prompts) != len(candidates):
        raise UnitError(f"{len(prompts)} prompts, but candidates for {len(candidates)}")
    for row, (ids, wanted) in enumerate(zip(prompts, candidates, strict=True)):
        error = prompt_error(Prompt(tuple(ids), 1), context, vocabulary)
        if error is None and any(not 0 <= i < vocabulary for i in wanted):
            error = f"candidates outside the vocabulary of {vocabulary}"
        if error is not None:
            raise UnitError(f"prompt {row}: {error}")
