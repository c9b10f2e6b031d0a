"""A task: named input→output pairs, with the rule by which an answer counts as right."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal

from prunelib.errors import UserError
from prunelib.identity import digest, seed_of

Pair = tuple[str, str]
Split = Literal["attribute", "search", "report"]
SPLITS: tuple[Split, ...] = ("attribute", "search", "report")
#: Quarters of the hash range; half of every task is kept for what is reported.
_QUARTERS: tuple[Split, ...] = ("attribute", "search", "report", "report")


@dataclass(frozen=True)
class PromptFormat:
    """How a pair is written; the query is written the same way, up to where the answer begins."""

    prefix: str
    arrow: str
    #: What stands between arrow and answer; it belongs to the answer, so that no prompt ends in
    #: a blank, which most tokenizers would have joined to the answer.
    lead: str
    separator: str

    def render(self, demonstrations: tuple[Pair, ...], query: str) -> str:
        """The prompt text, ending where the answer begins."""
        demos = "".join(
            f"{self.prefix}{x}{self.arrow}{self.lead}{y}{self.separator}" for x, y in demonstrations
        )
        return f"{demos}{self.prefix}{query}{self.arrow}"


@dataclass(frozen=True)
class Task:
    """Input→output pairs with a name.

    Args:
        name: unique name, also the value of the column ``task``.
        group: translation, linguistic, knowledge, algorithmic, proxy, capability or dataset.
        pairs: (input, output) pairs; inputs are unique, except in a data set, which may repeat
            itself.
        description: one line for people.
        gold_not_in_prompt: no demonstration carries the gold answer, so that copying is
            always an error (formulas.md §1.2).
        query_in_prompt: one of the demonstrations, at a random place, is the query's own pair:
            the answer is there and has to be found again, among others that are not it.
        match: ``exact`` (after stripping) or ``prefix`` (one string starts with the other, the
            rule that Hendel et al. use for knowledge tasks).
        sizes: how many of the pairs, in their order, belong to each of :data:`SPLITS`; ``None``
            divides them by the hash of the input.
        origin: the task with the same inputs whose division into splits this task shares, so
            that what one reports was not seen by attribution on the other.
        options: the answers among which one is chosen, if they are few and known.
        format: the way in which this task is always written; ``None`` leaves it to the recipe.
        unlabelled: splits whose answers are not known or not to be used.
        parts: tasks of which this one is a mixture: its prompts are theirs in turn, and it has
            no pairs of its own.
    """

    name: str
    group: str
    pairs: tuple[Pair, ...]
    description: str
    gold_not_in_prompt: bool = False
    query_in_prompt: bool = False
    match: Literal["exact", "prefix"] = "exact"
    sizes: tuple[int, int, int] | None = None
    origin: str = ""
    options: tuple[str, ...] = ()
    format: PromptFormat | None = None
    unlabelled: tuple[Split, ...] = ()
    parts: tuple[Task, ...] = ()

    @functools.cached_property
    def digest(self) -> str:
        """Content digest: changes when a pair or a rule changes, not with the description."""
        content: list[Any] = [self.name, [list(p) for p in self.pairs], self.gold_not_in_prompt,
                              self.match]
        return digest("task", [*content, *self._rules()])

    def _rules(self) -> Iterator[Any]:
        """What not every task has; a task without any keeps the digest that it always had."""
        if self.query_in_prompt:
            yield ["query in prompt"]
        if self.sizes is not None:
            yield ["sizes", *self.sizes]
        if self.origin:
            yield ["origin", self.origin]
        if self.options:
            yield ["options", *self.options]
        if self.format is not None:
            yield ["format", self.format.prefix, self.format.arrow, self.format.lead,
                   self.format.separator]
        if self.parts:
            yield ["parts", *(part.digest for part in self.parts)]
        if self.unlabelled:
            yield ["unlabelled", *sorted(self.unlabelled)]

    @functools.cached_property
    def _by_split(self) -> dict[Split, tuple[Pair, ...]]:
        if self.parts:
            return {split: tuple(pair for part in self.parts for pair in part.split(split))
                    for split in SPLITS}
        if self.sizes is not None:
            borders = pairwise(accumulate(self.sizes, initial=0))
            return {split: self.pairs[start:stop]
                    for split, (start, stop) in zip(SPLITS, borders, strict=True)}
        members: dict[Split, list[Pair]] = {split: [] for split in SPLITS}
        for pair in self.pairs:
            quarter = seed_of("split", self.origin or self.name, pair[0]) % 4
            members[_QUARTERS[quarter]].append(pair)
        return {split: tuple(pairs) for split, pairs in members.items()}

    def split(self, split: Split) -> tuple[Pair, ...]:
        """The pairs of one split. A pair belongs to one split for ever, by the hash of its input.

        (Or as the data set has it.) Queries *and* demonstrations come from the same split, so
        nothing that is reported was seen by attribution or by search.
        """
        return self._by_split[split]

    def labelled(self, split: Split) -> bool:
        """Whether the answers of a split may be used."""
        return split not in self.unlabelled

    def matches(self, prediction: str, answer: str) -> bool:
        """Whether a prediction counts as this answer."""
        prediction, answer = prediction.strip(), answer.strip()
        if self.match == "prefix" and prediction:
            return answer.startswith(prediction) or prediction.startswith(answer)
        return prediction == answer

    def check(self, split: Split, shots: int, examples: int = 0) -> None:
        """Raise :class:`UserError` if a split cannot give such prompts.

        Args:
            split: where queries and demonstrations come from.
            shots: demonstrations of a prompt.
            examples: prompts that are asked for. Only a data set's own split can be too small
                for them: other tasks begin again, with other demonstrations.
        """
        for part in self.parts:
            part.check(split, shots, -(-examples // len(self.parts)))
        if self.parts:
            return
        pairs = self.split(split)
        if not pairs:
            raise UserError(f"task '{self.name}' has no pairs in its {split} split")
        if self.sizes is not None and len(pairs) < examples:
            raise UserError(f"task '{self.name}' has {len(pairs)} samples in its {split} split, "
                            f"fewer than asked for: {examples}")
        if shots and not self.labelled(split):
            raise UserError(f"task '{self.name}' has no labels in its {split} split, so no "
                            "demonstrations: use shots: 0")
        if self.query_in_prompt and not shots:
            raise UserError(f"task '{self.name}' has its answer among the demonstrations: use "
                            "shots: 1 or more")
        have = len(pairs) - 1
        if self.gold_not_in_prompt:
            have = min(sum(y != gold for _, y in pairs) for _, gold in pairs)
        if have < shots:
            raise UserError(
                f"task '{self.name}' has {have} pairs for demonstrations in its "
                f"{split} split, fewer than shots: {shots}"
            )
