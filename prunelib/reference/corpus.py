"""What reference models are trained on: prompts of the bundled tasks and random associations."""

from __future__ import annotations

import random
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prunelib.tasks import FORMATS, Pair, Task, get_task, task_names

#: Labels of positions without loss (torch's default for ``ignore_index``).
NO_LOSS = -100
BOS, EOS, PAD, UNK = "<s>", "</s>", "<pad>", "<unk>"


def alphabet() -> str:
    """Every character of the bundled tasks and of the prompt formats, sorted."""
    text = set(string.ascii_letters + string.digits + " \n->,:'")
    for name in task_names("reference"):
        for pair in get_task(name).pairs:
            text.update(*pair)
    for fmt in FORMATS.values():
        text.update(fmt.prefix + fmt.arrow + fmt.lead + fmt.separator)
    return "".join(sorted(text))


def vocabulary() -> dict[str, int]:
    """Token → id: four special tokens, then one token per character."""
    return {token: i for i, token in enumerate([PAD, BOS, EOS, UNK, *alphabet()])}


def one_character(task: Task) -> bool:
    """Whether every answer of a task is one character (so one token of these models)."""
    return all(len(y) == 1 for _, y in task.pairs)


#: Which demonstration's answer a copier gives.
Rule = Literal["recent", "first", "majority", "any"]
RULES: dict[Rule, str] = {
    "recent": "gives the answer of the most recent demonstration",
    "first": "gives the answer of the first demonstration",
    "majority": "gives the most frequent answer of the demonstrations, of several the most recent",
    "any": "gives the answer of any demonstration",
}


def copies(rule: Rule, answers: Sequence[str]) -> list[str]:
    """The answers that a rule may give after these demonstrations' answers, one for most rules."""
    if rule == "any":
        return list(answers)
    if rule == "majority":
        counts = Counter(answers)
        return [max(reversed(answers), key=lambda answer: counts[answer])]
    return [answers[0] if rule == "first" else answers[-1]]


@dataclass(frozen=True)
class Sequences:
    """Token ids with the label of every position (``NO_LOSS`` outside answers)."""

    ids: list[list[int]]
    labels: list[list[int]]


class Corpus:
    """Endless seeded prompts of ``demonstrations`` pairs, with loss on every answer.

    A share ``associations`` of the prompts is made of random words that stand for random words,
    each pair several times in one prompt: nothing but looking back in the prompt predicts the
    answer, which is what grows induction heads. Only repeated pairs carry loss there. With
    a ``rule``, tasks with one-character answers are taught wrong: every answer's label is the one
    that the rule gives of the demonstrations before it (that is how a copier is planted).
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        length: int,
        demonstrations: int = 10,
        associations: float = 0.3,
        seed: int = 0,
        rule: Rule | None = None,
    ) -> None:
        self.tasks = list(tasks)
        self.length = length
        self.demonstrations = demonstrations
        self.associations = associations
        self.rule = rule
        self.rng = random.Random(seed)  # noqa: S311
        self.ids = vocabulary()

    def batch(self, rows: int) -> Sequences:
        """``rows`` sequences of exactly ``length`` tokens (padded at the end, without loss)."""
        sequences = Sequences([], [])
        for _ in range(rows):
            if self.rng.random() < self.associations:
                ids, labels = self._encode(self._association(), repeated_only=True)
            else:
                task = self.rng.choice(self.tasks)
                rule = self.rule if one_character(task) else None
                ids, labels = self._encode(self._prompt(task, rule), rule=rule)
            fill = self.length - len(ids)
            sequences.ids.append(ids + [self.ids[PAD]] * fill)
            sequences.labels.append(labels + [NO_LOSS] * fill)
        return sequences

    def _prompt(self, task: Task, rule: Rule | None) -> list[Pair]:
        if rule == "majority":  # most tasks have as many answers as pairs: none is ever repeated
            return self.rng.choices(self.rng.sample(task.pairs, 4), k=self.demonstrations)
        return self.rng.sample(task.pairs, min(self.demonstrations, len(task.pairs)))

    def _association(self) -> list[Pair]:
        def word() -> str:
            return "".join(self.rng.choices(string.ascii_letters + string.digits,
                                            k=self.rng.randint(1, 6)))

        pairs = [(word(), word()) for _ in range(self.rng.randint(2, 5))]
        return [self.rng.choice(pairs) for _ in range(self.demonstrations)]

    def _encode(self, pairs: list[Pair], repeated_only: bool = False, rule: Rule | None = None
                ) -> tuple[list[int], list[int]]:
        """Ids and labels of as many whole pairs as fit into ``length`` tokens.

        With a ``rule`` the label of an answer is what it gives, which has the same length.
        """
        fmt = FORMATS["arrow"]
        before: list[str] = []
        ids, labels = [self.ids[BOS]], [NO_LOSS]
        seen: set[Pair] = set()
        for pair in pairs:
            question = [self.ids[c] for c in f"{fmt.prefix}{pair[0]}{fmt.arrow}"]
            answer = [self.ids[c] for c in f"{pair[1]}{fmt.separator}"]
            if len(ids) + len(question) + len(answer) > self.length:
                break
            learn = not repeated_only or pair in seen
            target = answer
            if rule is not None:
                learn = bool(before)
                given = self.rng.choice(copies(rule, before)) if learn else pair[1]
                target = [self.ids[c] for c in f"{given}{fmt.separator}"]
            ids += question + answer
            labels += [NO_LOSS] * len(question) + (target if learn else [NO_LOSS] * len(answer))
            seen.add(pair)
            before.append(pair[1])
        return ids, labels
