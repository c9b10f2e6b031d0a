"""A task: named input→output pairs, with the rule by which an answer counts as right."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

from prunelib.errors import UserError
from prunelib.identity import digest, seed_of

Pair = tuple[str, str]
Split = Literal["attribute", "search", "report"]
SPLITS: tuple[Split, ...] = ("attribute", "search", "report")
#: Quarters of the hash range; half of every task is kept for what is reported.
_QUARTERS: tuple[Split, ...] = ("attribute", "search", "report", "report")


@dataclass(frozen=True)
class Task:
    """Input→output pairs with a name.

    Args:
        name: unique name, also the value of the column ``task``.
        group: translation, linguistic, knowledge, algorithmic or proxy.
        pairs: (input, output) pairs; inputs are unique.
        description: one line for people.
        gold_not_in_prompt: no demonstration carries the gold answer, so that copying is
            always an error (papers.md §1.2).
        match: ``exact`` (after stripping) or ``prefix`` (one string starts with the other, the
            rule that Hendel et al. use for knowledge tasks).
    """

    name: str
    group: str
    pairs: tuple[Pair, ...]
    description: str
    gold_not_in_prompt: bool = False
    match: Literal["exact", "prefix"] = "exact"

    @functools.cached_property
    def digest(self) -> str:
        """Content digest: changes when a pair or a rule changes, not with the description."""
        return digest(
            "task",
            [self.name, [list(p) for p in self.pairs], self.gold_not_in_prompt, self.match],
        )

    @functools.cached_property
    def _by_split(self) -> dict[Split, tuple[Pair, ...]]:
        members: dict[Split, list[Pair]] = {split: [] for split in SPLITS}
        for pair in self.pairs:
            members[_QUARTERS[seed_of("split", self.name, pair[0]) % 4]].append(pair)
        return {split: tuple(pairs) for split, pairs in members.items()}

    def split(self, split: Split) -> tuple[Pair, ...]:
        """The pairs of one split. A pair belongs to one split for ever, by the hash of its input.

        Queries *and* demonstrations come from the same split, so nothing that is reported was
        seen by attribution or by search.
        """
        return self._by_split[split]

    def matches(self, prediction: str, answer: str) -> bool:
        """Whether a prediction counts as this answer."""
        prediction, answer = prediction.strip(), answer.strip()
        if self.match == "prefix" and prediction:
            return answer.startswith(prediction) or prediction.startswith(answer)
        return prediction == answer

    def check(self, split: Split, shots: int) -> None:
        """Raise :class:`UserError` if a split is too small for prompts of ``shots`` shots."""
        pairs = self.split(split)
        have = len(pairs) - 1
        if self.gold_not_in_prompt and pairs:
            have = min(sum(y != gold for _, y in pairs) for _, gold in pairs)
        if have < shots:
            raise UserError(
                f"task '{self.name}' has {max(have, 0)} pairs for demonstrations in its "
                f"{split} split, fewer than shots: {shots}"
            )
