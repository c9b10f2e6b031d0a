"""Two classes with names that mean nothing, and prompts with so many demonstrations of each.

The setting in which in-context heads were found (formulas.md §4.1): of a labelled task two classes
are kept and called ``foo`` and ``bar``, so that only the demonstrations tell which is which::

    S0 : bar S1 : bar S2 : foo S3 : foo S4 :

The paper does not say how a task of more than two classes was made binary; here two of them are
kept: those that are named, or the two with the most inputs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from prunelib.errors import UserError
from prunelib.identity import seed_of
from prunelib.tasks.base import SPLITS, Pair, Task
from prunelib.tasks.prompts import FORMATS, MAX_SHOTS, Example
from prunelib.vocabulary import Split

#: What the classes are called in the paper.
LABELS = ("foo", "bar")
#: ``grouped``: all demonstrations of the second label, then all of the first, as the paper prints
#: them. ``shuffled``: every example in a random order of its own, in which one demonstration
#: fewer leaves the others where they are.
OrderName = Literal["grouped", "shuffled"]


def relabelled(
    task: Task, labels: tuple[str, str] = LABELS, classes: tuple[str, str] | None = None
) -> Task:
    """A task of two classes with semantically unrelated labels.

    The other rules of the task (what a demonstration may show) are not kept, its splits are.

    Args:
        task: with as many different answers as classes; bundled or of a data set.
        labels: what the two classes are called, in their order.
        classes: answers that are kept. The two with the most inputs unless given (of equals the
            first in the alphabet), in alphabetical order. The description names them.

    Raises:
        UserError: the task is a mixture, does not have these classes, or has not two of them;
            the labels are equal.
    """
    counts = Counter(y for split in SPLITS if task.labelled(split) for _, y in task.split(split))
    if task.parts or len(counts) < 2:
        raise UserError(f"task '{task.name}' has no two classes: choose a task whose answers are "
                        "classes")
    if classes is None:
        first, second = sorted(sorted(counts, key=lambda y: (-counts[y], y))[:2])
    else:
        first, second = classes
    if missing := sorted({first, second} - set(counts)):
        raise UserError(f"task '{task.name}' has no class '{missing[0]}'; its classes are "
                        f"{', '.join(sorted(counts)[:20])}")
    if first == second or labels[0] == labels[1]:
        raise UserError("give two different classes and two different labels")
    names = {first: labels[0], second: labels[1]}
    kept = {split: tuple((x, names.get(y, "")) for x, y in task.split(split)
                         if y in names or not task.labelled(split)) for split in SPLITS}
    attribute, search, report = (len(kept[split]) for split in SPLITS)
    hashed = task.sizes is None
    return Task(
        name=f"{task.name}_{labels[0]}_{labels[1]}",
        group=task.group,
        pairs=tuple(pair for split in SPLITS for pair in kept[split]),
        description=f"{task.description}; {first} is called {labels[0]} and {second} {labels[1]}",
        sizes=None if hashed else (attribute, search, report),
        origin=task.origin or task.name if hashed else "",
        options=labels,
        format=task.format,
        unlabelled=task.unlabelled,
    )


def draw_labelled(
    task: Task,
    *,
    split: Split,
    counts: tuple[int, int],
    seed: int,
    count: int,
    order: OrderName | Sequence[int] = "grouped",
    reverse: bool = False,
    prompt_format: str = "colon",
) -> list[Example]:
    """Draw prompts with ``counts[c]`` demonstrations of label ``c`` each.

    Queries are of the first and the second class in turn. A query and its demonstrations depend
    on (task, split, seed, example) alone, and fewer demonstrations of a class are the first of
    more, so that prompts that differ in ``counts``, ``order`` or ``reverse`` are paired.

    Args:
        task: from :func:`relabelled`.
        split: where queries and demonstrations come from.
        counts: demonstrations of the first and the second label.
        seed: another seed gives other prompts.
        count: number of prompts.
        order: in which order demonstrations stand: by name, or as a permutation of the indices
            of the grouped ones, the same for all prompts.
        reverse: whether the two labels change places, in demonstrations and gold answers.
        prompt_format: where the task has none of its own.

    Raises:
        UserError: the task has not two labels, the split has too few pairs of one of them (or no
            labels), or the order is no permutation.
    """
    if len(task.options) != 2:
        raise UserError(f"task '{task.name}' has not two labels: make it with relabelled()")
    if not task.labelled(split):
        raise UserError(f"task '{task.name}' has no labels in its {split} split")
    members = [[pair for pair in task.split(split) if pair[1] == label] for label in task.options]
    for label, pairs, wanted in zip(task.options, members, counts, strict=True):
        if not 0 <= wanted <= MAX_SHOTS or len({x for x, _ in pairs}) <= wanted:
            raise UserError(f"task '{task.name}' has {len(pairs)} pairs of '{label}' in its "
                            f"{split} split, so there can be no prompts with {wanted}")
    if not isinstance(order, str) and sorted(order) != list(range(sum(counts))):
        raise UserError(f"an order of {sum(counts)} demonstrations is a permutation of 0 to "
                        f"{sum(counts) - 1}")
    queries = [pairs[:] for pairs in members]
    for number, pairs in enumerate(queries):
        random.Random(seed_of("labelled queries", task.name, split, seed, number)  # noqa: S311
                      ).shuffle(pairs)
    drawn = [_labelled(task, members, queries[i % 2][i // 2 % len(queries[i % 2])], split, seed, i,
                       counts, order, prompt_format) for i in range(count)]
    if not reverse:
        return drawn
    swap = dict(zip(task.options, reversed(task.options), strict=True))
    fmt = task.format or FORMATS[prompt_format]
    turned = [tuple((x, swap[y]) for x, y in example.demonstrations) for example in drawn]
    return [replace(example, gold=swap[example.gold], demonstrations=demonstrations,
                    prompt=fmt.render(demonstrations, example.query))
            for example, demonstrations in zip(drawn, turned, strict=True)]


def _labelled(
    task: Task,
    members: Sequence[Sequence[Pair]],
    queried: Pair,
    split: Split,
    seed: int,
    index: int,
    counts: tuple[int, int],
    order: OrderName | Sequence[int],
    prompt_format: str,
) -> Example:
    fmt = task.format or FORMATS[prompt_format]
    rng = random.Random(seed_of("labelled", task.name, split, seed, index))  # noqa: S311
    chosen: list[list[Pair]] = []
    for pairs, wanted in zip(members, counts, strict=True):
        others = sorted({pair for pair in pairs if pair[0] != queried[0]})
        chosen.append(rng.sample(others, min(MAX_SHOTS, len(others)))[:wanted])
    grouped = chosen[1] + chosen[0]
    if order == "shuffled":
        keys = [[rng.random() for _ in range(MAX_SHOTS)] for _ in chosen]
        placed = sorted(zip(keys[1][:counts[1]] + keys[0][:counts[0]], grouped, strict=True))
        grouped = [pair for _, pair in placed]
    elif order != "grouped":
        grouped = [grouped[int(i)] for i in order]
    return Example(
        task=task.name,
        split=split,
        shots=len(grouped),
        seed=seed,
        example=index,
        query=queried[0],
        gold=queried[1],
        demonstrations=tuple(grouped),
        prompt=fmt.render(tuple(grouped), queried[0]),
        lead=fmt.lead,
        separator=fmt.separator,
    )


def orders(demonstrations: int, count: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Different orders of demonstrations: grouped, its reverse, and random ones.

    Raises :class:`UserError` if there are fewer than ``count``.
    """
    found = {tuple(range(demonstrations)): None, tuple(reversed(range(demonstrations))): None}
    rng = random.Random(seed_of("orders", demonstrations, seed))  # noqa: S311
    for _ in range(100 * count):
        if len(found) >= count:
            return list(found)[:count]
        found[tuple(rng.sample(range(demonstrations), demonstrations))] = None
    raise UserError(f"{demonstrations} demonstrations have fewer than {count} orders")
