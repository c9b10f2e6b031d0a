"""Rows of a data set as questions: prompt, right answer, and the choices where a row has some."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from prunelib.errors import UserError
from prunelib.tasks.base import Pair
from prunelib.tasks.choices import Choice, Choices
from prunelib.tasks.dataset_columns import PREPARATIONS
from prunelib.tasks.templates import (
    CHOICE,
    columns_of,
    element,
    filled,
    has_choice,
    template_columns,
    text_columns,
)

Row = dict[str, Any]


class QuestionSpec(Protocol):
    """What a :class:`~prunelib.tasks.datasets.DatasetSpec` says of its questions."""

    @property
    def template(self) -> str | None: ...
    @property
    def input(self) -> str | None: ...
    @property
    def label(self) -> str: ...
    @property
    def answers(self) -> dict[str, str] | None: ...
    @property
    def choices(self) -> str | tuple[str, ...] | None: ...
    @property
    def choice_labels(self) -> str | tuple[str, ...] | None: ...
    @property
    def continuation(self) -> str | None: ...
    @property
    def scoring(self) -> str | None: ...
    @property
    def prepare(self) -> str | None: ...


def as_text(value: Any) -> Any:
    """A label as the text by which it is looked up; truth values as YAML and JSON write them."""
    if isinstance(value, bool):
        return str(value).lower()
    whole = isinstance(value, float) and value.is_integer()  # a column of integers with gaps
    return str(int(value)) if isinstance(value, int) or whole else value


def used_columns(spec: QuestionSpec, labelled: bool) -> list[str]:
    """The data set's own columns that its questions need, with those of the labels or without."""
    names = [spec.input] if spec.input is not None else template_columns(spec.template or "")
    if isinstance(spec.choices, str):
        names += columns_of([spec.choices])
    elif spec.choices is not None:
        names += [name for choice in spec.choices for name in text_columns(choice)]
    if spec.continuation is not None:
        names += text_columns(spec.continuation)
    if labelled:
        names += columns_of([spec.label])
        if isinstance(spec.choice_labels, str):
            names += columns_of([spec.choice_labels])
    if spec.prepare is not None:
        preparation = PREPARATIONS[spec.prepare]
        names = [n for n in names if n not in preparation.makes] + list(preparation.needs)
    return list(dict.fromkeys(names))


def question(spec: QuestionSpec, row: Row, where: str, labelled: bool) -> tuple[Pair, Choices]:
    """A row as (prompt, right answer) and its choices, which few data sets have.

    Raises :class:`UserError` if the row, which ``where`` names, lacks something.
    """
    if spec.prepare is not None:
        preparation = PREPARATIONS[spec.prepare]
        for column in preparation.needs:
            if row[column] is None:
                raise UserError(f"{where}: column '{column}' is empty")
        try:
            row = row | preparation.function(row)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise UserError(f"{where}: prepare: {spec.prepare} cannot read it ({error!r})"
                            ) from error
    body = f"{{{spec.input}}}" if spec.input is not None else (
        spec.template or "").removesuffix("{answer}").rstrip(" ")
    if spec.choices is not None:
        choices = _choices(spec, body, row, where, labelled)
        right = next((c for c in choices if c.right), choices[0])
        return (right.query, right.continuation if labelled else ""), choices
    pair = (filled(body, row, where), _answer(spec, row, where) if labelled else "")
    if spec.scoring == "greedy_match":
        return pair, (Choice(pair[1], *pair, right=True),)
    return pair, ()


def _choices(spec: QuestionSpec, body: str, row: Row, where: str, labelled: bool) -> Choices:
    texts = (element(spec.choices, row, where) if isinstance(spec.choices, str)
             else [filled(choice, row, where) for choice in spec.choices or ()])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: '{spec.choices}' is not a list of texts")
    if len(texts) < 2:
        raise UserError(f"{where}: a question has two choices or more, not {len(texts)}")
    if not all(texts):
        raise UserError(f"{where}: choice {texts.index('') + 1} is empty")
    right = _right(spec, row, len(texts), where) if labelled else set()
    fixed = None if spec.continuation is None else filled(spec.continuation, row, where)
    inside = spec.template is not None and has_choice(spec.template)
    return tuple(
        Choice(text, filled(body, row | {CHOICE: text} if inside else row, where),
               text if fixed is None else fixed, i in right)
        for i, text in enumerate(texts))


def _right(spec: QuestionSpec, row: Row, count: int, where: str) -> set[int]:
    """Which choices are right."""
    given = spec.choice_labels
    labels: Sequence[Any] = range(count) if given is None else (
        element(given, row, where) if isinstance(given, str) else given)
    names = [str(as_text(label)).strip() for label in labels][:count]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{where}: two of its choices' labels are '{twice[0]}'")
    found = element(spec.label, row, where)
    right = set()
    for label in found if isinstance(found, list) else [found]:
        name = str(as_text(label)).strip()
        if name not in names:
            raise UserError(f"{where}: label '{name}' is none of its choices' labels, which are "
                            f"{', '.join(names)}")
        right.add(names.index(name))
    if not right:
        raise UserError(f"{where}: no choice is right")
    return right


def _answer(spec: QuestionSpec, row: Row, where: str) -> str:
    label = str(as_text(element(spec.label, row, where)))
    if spec.answers is None:
        if not label.strip() or "\n" in label:
            raise UserError(f"{where}: an answer is one line of text, not {label!r}")
        return label.strip()
    if label not in spec.answers:
        # Files write YAML's keys true and 1 in several ways.
        label = re.sub(r"^(\d+)\.0+$", r"\1", label)
        label = label.lower() if label.lower() in ("true", "false") else label
    if label not in spec.answers:
        raise UserError(f"{where}: label '{label}' has no answer; answers has "
                        f"{', '.join(spec.answers)}")
    return spec.answers[label]
