"""A task: named input→output pairs, with the rule by which an answer counts as right."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal

from prunelib import vocabulary
from prunelib.errors import UserError
from prunelib.identity import digest, seed_of
from prunelib.tasks.choices import Choices, ChoiceScoring
from prunelib.vocabulary import Split

Pair = tuple[str, str]
SPLITS: tuple[Split, ...] = tuple(vocabulary.SPLITS)
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
class Pool:
    """Pairs, and at which places an input or an answer (in its normal form) stands."""

    pairs: tuple[Pair, ...]
    #: Choices of each pair's question, if questions have their own.
    choices: tuple[Choices, ...]
    by_input: dict[str, list[int]]
    by_answer: dict[str, list[int]]
    #: Places of the different questions: those with another input, or other choices.
    questions: tuple[int, ...]

    @classmethod
    def of(cls, pairs: tuple[Pair, ...], normal: Callable[[str], str],
           choices: tuple[Choices, ...] = ()) -> Pool:
        """A pool of some pairs."""
        by_input: dict[str, list[int]] = {}
        by_answer: dict[str, list[int]] = {}
        for i, (x, y) in enumerate(pairs):
            by_input.setdefault(x, []).append(i)
            by_answer.setdefault(normal(y), []).append(i)
        keys = [(x, of) for (x, _), of in zip(pairs, choices or [()] * len(pairs), strict=True)]
        different = {key: i for i, key in reversed(list(enumerate(keys)))}
        return cls(pairs, choices, by_input, by_answer, tuple(sorted(different.values())))

    def hidden(self, queried: Pair, task: Task) -> list[int]:
        """Places, ascending, of the pairs that are no demonstrations for a query.

        Those with the query's own input, wherever it stands, and those with its answer if the
        task wants that.
        """
        same = self.by_input.get(queried[0], [])
        if not task.gold_not_in_prompt:
            return same
        return sorted({*same, *self.by_answer.get(task.normal(queried[1]), [])})

    def shown(self, queried: Pair, task: Task) -> int:
        """How many pairs are demonstrations for a query."""
        places = self.by_input.get(queried[0], [])
        hidden = len(places)
        if task.gold_not_in_prompt:
            answer = task.normal(queried[1])
            hidden += len(self.by_answer.get(answer, [])) - sum(
                task.normal(self.pairs[i][1]) == answer for i in places)
        return len(self.pairs) - hidden


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
        match: ``exact`` or ``prefix`` (one string starts with the other, the rule that Hendel et
            al. use for knowledge tasks), both of the :meth:`normal` form.
        ignore_case: whether answers that differ in case alone are the same.
        sizes: how many of the pairs, in their order, belong to each of :data:`SPLITS`; ``None``
            divides them by the hash of the input.
        origin: the task with the same inputs whose division into splits this task shares, so
            that what one reports was not seen by attribution on the other.
        options: the answers among which one is chosen, if they are few and known.
        format: the way in which this task is always written; ``None`` leaves it to the recipe.
        unlabelled: splits whose answers are not known or not to be used.
        parts: tasks of which this one is a mixture: its prompts are theirs in turn, and it has
            no pairs of its own.
        choices: the choices of each pair's question, where questions have their own; the pair is
            then the question and the text of its right choice.
        scoring: how answers are read; empty leaves it to the recipe.
        correct: the function of the user's that says whether an answer is right
            (:mod:`prunelib.tasks.right_answers`), in place of ``match``; whether it was copied is
            told by its text all the same.
        correct_source: digest of that function's file.
    """

    name: str
    group: str
    pairs: tuple[Pair, ...]
    description: str
    gold_not_in_prompt: bool = False
    query_in_prompt: bool = False
    match: Literal["exact", "prefix"] = "exact"
    ignore_case: bool = False
    sizes: tuple[int, int, int] | None = None
    origin: str = ""
    options: tuple[str, ...] = ()
    format: PromptFormat | None = None
    unlabelled: tuple[Split, ...] = ()
    parts: tuple[Task, ...] = ()
    choices: tuple[Choices, ...] = ()
    scoring: ChoiceScoring | Literal["greedy", "options", ""] = ""
    correct: str = ""
    correct_source: str = ""

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
        if self.ignore_case:
            yield ["ignore case"]
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
        if self.choices:
            yield ["choices", *([[c.text, c.query, c.continuation, c.right] for c in question]
                                for question in self.choices)]
        if self.scoring:
            yield ["scoring", self.scoring]
        if self.correct:
            yield ["correct", self.correct, self.correct_source]

    @functools.cached_property
    def _by_split(self) -> dict[Split, tuple[Pair, ...]]:
        if self.parts:
            return {split: tuple(pair for part in self.parts for pair in part.split(split))
                    for split in SPLITS}
        if self.sizes is not None:
            return {split: self.pairs[part] for split, part in self._parts_of_sizes.items()}
        members: dict[Split, list[Pair]] = {split: [] for split in SPLITS}
        for pair in self.pairs:
            quarter = seed_of("split", self.origin or self.name, pair[0]) % 4
            members[_QUARTERS[quarter]].append(pair)
        return {split: tuple(pairs) for split, pairs in members.items()}

    @functools.cached_property
    def _parts_of_sizes(self) -> dict[Split, slice]:
        borders = pairwise(accumulate(self.sizes or (), initial=0))
        return {split: slice(*border) for split, border in zip(SPLITS, borders, strict=False)}

    def split_choices(self, split: Split) -> tuple[Choices, ...]:
        """The choices of each pair of one split; none where questions have none of their own."""
        return self.choices[self._parts_of_sizes[split]] if self.choices else ()

    def split(self, split: Split) -> tuple[Pair, ...]:
        """The pairs of one split. A pair belongs to one split for ever, by the hash of its input.

        (Or as the data set has it.) Queries *and* demonstrations come from the same split, so
        nothing that is reported was seen by attribution or by search.
        """
        return self._by_split[split]

    def pool(self, *splits: Split) -> Pool:
        """The pairs of some splits together, with their places by input and by answer."""
        if splits not in self._pools:
            self._pools[splits] = Pool.of(
                tuple(pair for split in splits for pair in self.split(split)), self.normal,
                tuple(choices for split in splits for choices in self.split_choices(split)))
        return self._pools[splits]

    @functools.cached_property
    def _pools(self) -> dict[tuple[Split, ...], Pool]:
        return {}

    def queries(self, split: Split) -> int:
        """How many different questions a split has."""
        return sum(part.queries(split) for part in self.parts) or len(
            self.pool(split).questions)

    def labelled(self, split: Split) -> bool:
        """Whether the answers of a split may be used."""
        return split not in self.unlabelled

    def normal(self, text: str) -> str:
        """The form in which answers are compared: Unicode NFC, without blanks around it.

        Case is folded only if the task ignores it.
        """
        text = unicodedata.normalize("NFC", text)
        if self.ignore_case:
            text = unicodedata.normalize("NFC", text.casefold())
        return text.strip()

    def matches(self, prediction: str, answer: str) -> bool:
        """Whether a prediction counts as this answer."""
        prediction, answer = self.normal(prediction), self.normal(answer)
        if self.match == "prefix" and prediction:
            return answer.startswith(prediction) or prediction.startswith(answer)
        return prediction == answer

    def check(self, split: Split, shots: int, examples: int = 0,
              demonstrations: tuple[Split, ...] = ()) -> None:
        """Raise :class:`UserError` if a split cannot give such prompts.

        Args:
            split: where queries come from.
            shots: demonstrations of a prompt.
            examples: prompts that are asked for. Only a data set's own split can be too small
                for them: other tasks begin again, with other demonstrations.
            demonstrations: splits where demonstrations come from, by default that of the queries.
        """
        for part in self.parts:
            part.check(split, shots, -(-examples // len(self.parts)), demonstrations)
        if self.parts:
            return
        pairs = self.split(split)
        if not pairs:
            raise UserError(f"task '{self.name}' has no pairs in its {split} split")
        if self.sizes is not None and len(pairs) < examples:
            raise UserError(f"task '{self.name}' has {len(pairs)} samples in its {split} split, "
                            f"fewer than asked for: {examples}")
        shown = demonstrations or (split,)
        for place in shown if shots else ():
            if not self.labelled(place):
                raise UserError(f"task '{self.name}' has no labels in its {place} split, so no "
                                "demonstrations: use shots: 0")
        if self.query_in_prompt and not shots:
            raise UserError(f"task '{self.name}' has its answer among the demonstrations: use "
                            "shots: 1 or more")
        pool = self.pool(*shown)
        have = min(pool.shown(pair, self) for pair in pairs) if shots else 0
        if have < shots:
            raise UserError(
                f"task '{self.name}' has {have} pairs for demonstrations in its "
                f"{' and '.join(shown)} split, fewer than shots: {shots}"
            )
