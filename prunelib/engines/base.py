"""What an engine is: it completes prompts under an intervention that is switched in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from prunelib.interventions.base import Intervention


@dataclass(frozen=True)
class Prompt:
    """Token ids of a prompt (tokenised once, by us) and how many tokens may follow.

    ``until``: texts that end the completion; ``None`` for the end of a line or turn. What a
    tokenizer or model calls its end of text ends every completion.
    """

    token_ids: tuple[int, ...]
    max_tokens: int
    until: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Completion:
    """The greedy continuation: ids up to and without the first stop token, and its text.

    Of a prompt with texts that end it (``until``), the text ends before the first of them; the ids
    may go on.
    ``error`` names what was wrong with this one prompt (too long, say); then the text is empty.
    """

    token_ids: tuple[int, ...]
    text: str
    error: str | None = None


@dataclass(frozen=True)
class Canary:
    """What a model under an intervention must answer: next-token log-probabilities of one prompt.

    Computed by transformers while the intervention is chosen, checked by every engine after every
    switch, so that no engine ever runs weights other than those we think.
    """

    token_ids: tuple[int, ...]
    candidates: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class Forced:
    """What a model gives to a continuation that it is made to say after a prompt.

    Attributes:
        logprobs: natural log-probability of each of its tokens.
        best: id of the most probable token at the place of each.
        error: what was wrong with this one (too long, say); then the others are empty.
    """

    logprobs: tuple[float, ...]
    best: tuple[int, ...]
    error: str | None = None


class Engine(Protocol):
    """Runs prompts under an intervention. One base model per engine, for its whole life."""

    #: ``transformers`` or ``vllm``; a column of ``predictions`` and part of a unit's id.
    kind: str
    #: Kinds of intervention that it can run.
    runs: frozenset[str]

    def switch(self, intervention: Intervention, canary: Canary | None = None) -> None:
        """Make ``intervention`` the live one and forget every cached state of the one before.

        Raises :class:`~prunelib.errors.EngineDeadError` if the engine cannot prove that it runs
        this intervention, :class:`~prunelib.errors.UserError` if it cannot run its kind.
        """
        ...

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """Greedy completions, in the order of the prompts; a bad prompt gives an error row."""
        ...

    def logprobs(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]],
        begun: Sequence[int] | None = None,
    ) -> list[list[float]]:
        """Next-token log-probabilities (natural, full vocabulary) of each prompt's candidates.

        ``begun``: how many tokens at the end of each prompt are of an answer that has begun, if
        any are: some interventions act where answers are read.
        """
        ...

    def force(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]],
        fill: bool = False,
    ) -> list[Forced]:
        """Teacher forcing: log-probabilities of each prompt's continuation, in their order.

        A bad prompt, or an empty continuation, gives an error of that one alone. With ``fill`` the
        last token, which is not read, may be behind the context, where an engine can do that.
        """
        ...

    def close(self) -> None:
        """Give everything back. A closed engine is not used again."""
        ...
