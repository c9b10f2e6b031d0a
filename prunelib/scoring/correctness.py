"""Whether an answer is right, and whether a wrong one was copied from the prompt."""

from __future__ import annotations

from dataclasses import dataclass

from prunelib.tasks import Example, Task, is_right


@dataclass(frozen=True)
class Outcome:
    """What one prediction counts as.

    Attributes:
        correct: it matches the gold answer, or what the task has for that says so.
        copied: it is wrong *and* matches a demonstration's answer (formulas.md §1.1).
        copied_position: index of the last demonstration whose answer it is, or None.
        gold_in_prompt: a demonstration carries the gold answer.
    """

    correct: bool
    copied: bool
    copied_position: int | None
    gold_in_prompt: bool


def first_line(text: str, separator: str) -> str:
    """The answer in a completion: what stands before the next pair would begin.

    A blank before the answer belongs to no separator, not even to one that is a blank.
    """
    return text.split("\n")[0].lstrip(" ").split(separator)[0].strip()


def judge(task: Task, example: Example, prediction: str) -> Outcome:
    """Score one prediction against the gold answer and the demonstrations' answers.

    Raises :class:`~prunelib.errors.UnitError` if the task's own function cannot tell.
    """
    correct = is_right(task, example, prediction)
    positions = [i for i, y in enumerate(example.answers) if task.matches(prediction, y)]
    copied = not correct and bool(positions)
    return Outcome(
        correct=correct,
        copied=copied,
        copied_position=positions[-1] if copied else None,
        gold_in_prompt=any(task.matches(y, example.gold) for y in example.answers),
    )
