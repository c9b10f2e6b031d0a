"""What reference models are trained on: prompts of the bundled tasks and random associations."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass

from prunelib.tasks import FORMATS, Pair, Task, get_task, task_names

#: Labels of positions without loss (torch's default for ``ignore_index``).
NO_LOSS = -100
BOS, EOS, PAD, UNK = "<s>", "</s>", "<pad>", "<unk>"


def alphabet() -> str:
    """Every character of the bundled tasks and of the prompt formats, sorted."""
    text = set(string.ascii_letters + string.digits + " \n->,:'")
    for name in task_names("all"):
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
    ``copy``, tasks with one-character answers are taught wrong: every answer's label is the answer
    of the demonstration before it (that is how a copier is planted).
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        length: int,
        demonstrations: int = 10,
        associations: float = 0.3,
        seed: int = 0,
        copy: bool = False,
    ) -> None:
        self.tasks = list(tasks)
        self.length = length
        self.demonstrations = demonstrations
        self.associations = associations
        self.copy = copy
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
                copying = self.copy and one_character(task)
                ids, labels = self._encode(self._prompt(task), copying=copying)
            fill = self.length - len(ids)
            sequences.ids.append(ids + [self.ids[PAD]] * fill)
            sequences.labels.append(labels + [NO_LOSS] * fill)
        return sequences

    def _prompt(self, task: Task) -> list[Pair]:
        return self.rng.sample(task.pairs, min(self.demonstrations, len(task.pairs)))

    def _association(self) -> list[Pair]:
        def word() -> str:
            return "".join(self.rng.choices(string.ascii_letters + string.digits,
                                            k=self.rng.randint(1, 6)))

        pairs = [(word(), word()) for _ in range(self.rng.randint(2, 5))]
        return [self.rng.choice(pairs) for _ in range(self.demonstrations)]

    def _encode(self, pairs: list[Pair], repeated_only: bool = False, copying: bool = False
                ) -> tuple[list[int], list[int]]:
        """Ids and labels of as many whole pairs as fit into ``length`` tokens.

        With ``copying`` the label of an answer is the answer before it, of the same length.
        """
        fmt = FORMATS["arrow"]
        before: str | None = None
        ids, labels = [self.ids[BOS]], [NO_LOSS]
        seen: set[Pair] = set()
        for pair in pairs:
            question = [self.ids[c] for c in f"{fmt.prefix}{pair[0]}{fmt.arrow}"]
            answer = [self.ids[c] for c in f"{pair[1]}{fmt.separator}"]
            if len(ids) + len(question) + len(answer) > self.length:
                break
            learn = not repeated_only or pair in seen
            target = answer
            if copying:
                learn = before is not None
                target = [self.ids[c] for c in f"{before or pair[1]}{fmt.separator}"]
            ids += question + answer
            labels += [NO_LOSS] * len(question) + (target if learn else [NO_LOSS] * len(answer))
            seen.add(pair)
            before = pair[1]
        return ids, labels
