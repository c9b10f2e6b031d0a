"""Whether an answer is right: by its text, or by a function of the user's."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from prunelib.errors import UnitError, UserError
from prunelib.own_functions import check_form, import_function, said, source_digest
from prunelib.tasks.base import SPLITS, Task
from prunelib.tasks.prompts import Example, draw

#: What messages call a function of the user's that says whether an answer is right.
ANSWER_SCORER = "answer scorer"
#: Answers that no task expects, and a model may give.
_ODD = ("", "-", "1e999", "?!")


def _named(name: str | None) -> str | None:
    if name is not None:
        check_form(ANSWER_SCORER, name)
    return name


#: The key of a recipe that names such a function.
OwnScorer = Annotated[str | None, AfterValidator(_named)]


def scorer_source(name: str | None) -> str:
    """Digest of the file of a user's function; empty if there is none.

    Raises :class:`UserError` as :func:`~prunelib.own_functions.import_function` does.
    """
    return source_digest(ANSWER_SCORER, name) if name else ""


def is_right(task: Task, example: Example, prediction: str) -> bool:
    """Whether a prediction is a right answer to an example.

    Raises :class:`UnitError` if the task's own function fails, or says neither yes nor no.
    """
    if not task.correct:
        return task.matches(prediction, example.gold)
    where = f"{ANSWER_SCORER} '{task.correct}'"
    try:
        found = import_function(ANSWER_SCORER, task.correct)(prediction, example.gold, example)
    except Exception as error:
        raise UnitError(f"{where} fails for the answer {prediction!r} where {example.gold!r} is "
                        f"right: {said(error)}") from error
    if not isinstance(found, bool):
        raise UnitError(f"{where} has to return True or False, not {type(found).__name__}")
    return found


def try_scorer(task: Task) -> None:
    """Call a task's own function for a few answers to one of its examples, odd ones among them.

    Raises :class:`UserError` if it fails, or says neither yes nor no.
    """
    split = next(split for split in SPLITS if task.split(split) and task.labelled(split))
    (example,) = draw(task, split=split, shots=0, seed=0, count=1)
    try:
        for prediction in (example.gold, *_ODD):
            is_right(task, example, prediction)
    except UnitError as error:
        raise UserError(str(error)) from error
