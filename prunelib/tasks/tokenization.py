"""Prompts as token ids, padded into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from prunelib.errors import UnitError
from prunelib.tasks.prompts import Example

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


#: Fills batches. Any id that every embedding has will do under a mask: a tokenizer may have no
#: token for it, or one that the embedding lacks.
PAD = 0

#: What tokenizers put in front of and behind every text; and what stands in front instead.
_AROUND: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[tuple[int, ...], tuple[int, ...]]] = (
    WeakKeyDictionary())
_STARTS: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, ...]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Encoded:
    """One prompt as token ids, with the first token of the answers that matter."""

    prompt: tuple[int, ...]
    gold: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]

    @property
    def first_gold(self) -> int:
        """First token of the gold answer."""
        return self.gold[0]

    @property
    def first_copies(self) -> tuple[int, ...]:
        """First tokens of the demonstrations' answers, each once, without that of the gold."""
        return tuple(sorted({a[0] for a in self.answers} - {self.gold[0]}))


def encode(example: Example, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Tokenise a prompt and, in its context, the gold answer and the demonstrations' answers.

    Without a label the gold answer has no tokens. Raises :class:`UnitError` as
    :func:`answer_tokens` does.
    """
    known = (example.gold, *example.answers) if example.gold else example.answers
    prompt, tokens = answer_tokens(example, known, tokenizer)
    answers = tuple(tokens)
    return Encoded(prompt, answers[0], answers[1:]) if example.gold else Encoded(
        prompt, (), answers)


def answer_tokens(
    example: Example, answers: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Token ids of a prompt, and of each of some answers in its context.

    Raises :class:`UnitError` as :func:`continuation` does.
    """
    before = token_ids(example.prompt, tokenizer, example.templated)
    tails = {answer: _beyond(before, example.prompt, example.lead + answer, tokenizer,
                             example.templated)
             for answer in dict.fromkeys(answers)}
    return tuple(before), [tails[answer] for answer in answers]


def token_ids(text: str, tokenizer: PreTrainedTokenizerBase, templated: bool = False) -> list[int]:
    """Token ids of a text; the special tokens around it are there if a template wrote it.

    What the tokenizer puts behind every text (:func:`appended`) is left out: more is to follow.
    """
    if templated:
        return _ids(tokenizer, text, special=False)
    if tokenizer in _STARTS:
        return [*_STARTS[tokenizer], *_ids(tokenizer, text, special=False)]
    ids = _ids(tokenizer, text, special=True)
    return ids[: len(ids) - len(appended(tokenizer))]


def appended(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Special tokens that a tokenizer puts behind every text, such as an end that was trained."""
    return _around(tokenizer)[1]


def omitted_start(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The start token that a tokenizer knows and does not put in front of texts, if any."""
    start = tokenizer.bos_token_id
    return None if start is None or start in _around(tokenizer)[0] else int(start)


def start_with(tokenizer: PreTrainedTokenizerBase, always: bool) -> None:
    """Let texts begin with the start token from now on, or never, whatever the tokenizer does."""
    others = tuple(i for i in _around(tokenizer)[0] if i != tokenizer.bos_token_id)
    _STARTS[tokenizer] = (int(tokenizer.bos_token_id), *others) if always else others


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, special: bool) -> list[int]:
    # That a text is longer than a context is for others to see: not verbose.
    return list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])


def _around(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Special tokens that a tokenizer puts in front of and behind every text."""
    if tokenizer not in _AROUND:
        plain, whole = (_ids(tokenizer, "a", special) for special in (False, True))
        before = next((i for i in range(len(whole) - len(plain) + 1)
                       if whole[i : i + len(plain)] == plain), 0)
        _AROUND[tokenizer] = tuple(whole[:before]), tuple(whole[before + len(plain) :])
    return _AROUND[tokenizer]


def continuation(prompt: str, answer: str, tokenizer: PreTrainedTokenizerBase,
                 templated: bool = False) -> tuple[int, ...]:
    """Token ids of an answer after a prompt: what both together have beyond the prompt.

    An answer is never tokenised alone, where a tokenizer may begin it differently. Raises
    :class:`UnitError` if the tokenizer merges across that border, for then the answer has no
    tokens of its own.
    """
    return _beyond(token_ids(prompt, tokenizer, templated), prompt, answer, tokenizer, templated)


def answer_room(examples: Sequence[Example], options: Sequence[str],
                tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of the longest answer that occurs (or option) as it stands in a prompt, and its end.

    Every answer is looked at once, in the first prompt in which it occurs.
    """
    met: dict[str, Example] = {}
    for example in examples:
        for answer in (example.gold, *example.answers, *options):
            met.setdefault(answer, example)
    longest = 0
    for answer, example in met.items():
        before = token_ids(example.prompt, tokenizer, example.templated)
        whole = token_ids(example.prompt + example.lead + answer, tokenizer, example.templated)
        # A tokenizer may merge the end of the prompt with the answer.
        same = takewhile(lambda both: both[0] == both[1], zip(before, whole, strict=False))
        longest = max(longest, len(whole) - sum(1 for _ in same))
    return longest + 1


def _beyond(before: list[int], prompt: str, answer: str, tokenizer: PreTrainedTokenizerBase,
            templated: bool) -> tuple[int, ...]:
    """As :func:`continuation`, of a prompt whose tokens are known."""
    whole = token_ids(prompt + answer, tokenizer, templated)
    if whole[: len(before)] != before or len(whole) == len(before):
        raise UnitError(f"the tokenizer merges the prompt's end with the answer {answer!r}")
    return tuple(whole[len(before) :])


@dataclass(frozen=True)
class Batch:
    """Left-padded ids, mask and positions, each ``[rows, length]``: the last column is the end."""

    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor

    def repeat(self, times: int) -> Batch:
        """The whole batch ``times`` times, one copy after the other."""
        return Batch(*(x.repeat(times, 1) for x in (self.ids, self.mask, self.positions)))

    def inputs(self) -> dict[str, torch.Tensor]:
        """Keyword arguments for a transformers model."""
        return {
            "input_ids": self.ids,
            "attention_mask": self.mask,
            "position_ids": self.positions,
        }


def pad_left(rows: Sequence[Sequence[int]], device: torch.device) -> Batch:
    """Batch rows of different lengths so that every row ends in the last column."""
    import torch

    width = max(len(row) for row in rows)
    ids = torch.tensor([[PAD] * (width - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return Batch(ids, mask, (mask.cumsum(-1) - 1).clamp(min=0))
