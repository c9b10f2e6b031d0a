"""Data sets as tasks: a section of the recipe becomes labelled prompts in three splits.

A template turns a row into a prompt. It is one string with the row's columns in braces and, at
its end, ``{answer}``, where the answer begins::

    Review: {text}
    Verdict: {answer}

A column that holds a list of choices is written as one lettered line for each (``A: …``).
"""

from __future__ import annotations

import functools
import json
import random
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from prunelib.errors import UserError, unknown_name
from prunelib.identity import seed_of
from prunelib.tasks.base import SPLITS, Pair, PromptFormat, Split, Task
from prunelib.tasks.dataset_files import Row, find, is_local, read, resolve_revision
from prunelib.tasks.dataset_presets import KNOWN
from prunelib.tasks.registry import TASKS

_SLOT = "answer"
#: A column, or one element of a column that holds lists or has parts, such as ``choices[text][0]``.
_FIELD = re.compile(r"([A-Za-z_]\w*)(\[\w+\])*")


def _text(value: Any) -> Any:
    """A label as the text by which it is looked up; truth values as YAML and JSON write them."""
    if isinstance(value, bool):
        return str(value).lower()
    whole = isinstance(value, float) and value.is_integer()  # a column of integers with gaps
    return str(int(value)) if isinstance(value, int) or whole else value


def _texts(value: Any) -> Any:
    return {_text(k): v for k, v in value.items()} if isinstance(value, dict) else value


class DatasetSpec(BaseModel):
    """A data set from the hub or from a local folder in the hub's layout.

    The name of a known data set (`prunelib tasks` lists them) brings all other fields; those
    that are given replace them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Name of the task.
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    #: Local folder, or a name on the hub.
    path: str
    #: Configuration on the hub, such as a language; by default the only one.
    config: str | None = None
    #: Commit, branch or tag on the hub; a run takes the commit that it stands for at its start.
    revision: str | None = None
    #: Our split → the data set's. Several of ours may be one of the data set's: its rows are
    #: then divided evenly among them.
    splits: Annotated[dict[Split, str], Field(min_length=1)] = {
        "attribute": "train", "search": "validation", "report": "test",
    }  # fmt: skip
    #: How a row is written, with its columns in braces and ``{answer}`` at the end.
    template: str
    #: The column with the label.
    label: str = "label"
    #: Label → answer. Without it the label is the answer, and answers are not chosen among
    #: options.
    answers: Annotated[dict[str, str] | None, BeforeValidator(_texts)] = None
    #: The most rows of a split; which ones is drawn at random, always the same.
    limit: dict[Split, Annotated[int, Field(ge=1)]] = {}
    #: Splits whose labels are not used, and need not be there.
    unlabelled: tuple[Split, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: Any) -> Any:
        value = {"name": value} if isinstance(value, str) else value
        if not isinstance(value, dict):
            return value
        if "path" not in value and value.get("name") not in KNOWN:
            raise unknown_name("data set", str(value.get("name")), KNOWN)
        return KNOWN.get(str(value.get("name")), {}) | value

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        if name in TASKS:
            raise UserError(f"'{name}' is the name of a bundled task: give the data set another")
        return name

    @field_validator("template")
    @classmethod
    def _readable(cls, template: str) -> str:
        template_columns(template)
        return template

    @field_validator("answers")
    @classmethod
    def _one_line(cls, answers: dict[str, str] | None) -> dict[str, str] | None:
        for label, answer in (answers or {}).items():
            if not answer or answer != answer.strip() or "\n" in answer:
                raise UserError(f"the answer of label '{label}' is one line of text without "
                                f"blanks around it, not {answer!r}")
        return answers

    @property
    def options(self) -> tuple[str, ...]:
        """The answers, each once, in the order of the recipe."""
        return tuple(dict.fromkeys((self.answers or {}).values()))


def template_columns(template: str) -> list[str]:
    """The columns that a template names, each once.

    Raises :class:`UserError` if it cannot be read, or does not end where the answer begins.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"template: {error} (a brace that is meant is written twice)") from error
    fields = [(name, spec, conversion) for _, name, spec, conversion in parts if name is not None]
    if [name for name, _, _ in fields].count(_SLOT) != 1 or not template.endswith("{answer}"):
        raise UserError("a template ends with {answer}, where the answer begins, and has it once")
    columns: dict[str, None] = {}
    for name, spec, conversion in fields[:-1]:
        found = _FIELD.fullmatch(name)
        if found is None or spec or conversion:
            raise UserError(f"template: write a column as {{name}} or {{name[0]}}, "
                            f"not as {{{name}}} with anything else")
        columns[found[1]] = None
    return list(columns)


def pinned(spec: DatasetSpec) -> DatasetSpec:
    """The same data set wherever it is read: a commit for a revision, an absolute local path.

    Raises :class:`UserError` if the data set is nowhere.
    """
    if is_local(spec.path):
        return spec.model_copy(update={"path": str(Path(spec.path).resolve())})
    return spec.model_copy(update={"revision": resolve_revision(spec.path, spec.revision)})


def build_task(spec: DatasetSpec) -> Task:
    """The task that a data set is, read once per process.

    Raises :class:`UserError` if the data set, a split, a column, or the answer of a label is
    missing.
    """
    return _build(spec.model_dump_json())


@functools.cache
def _build(content: str) -> Task:
    spec = DatasetSpec.model_validate_json(content)
    body = spec.template.removesuffix("{answer}")
    lead = body[len(body.rstrip(" ")):]
    pairs = _pairs(spec, body.rstrip(" "))
    sizes = [len(pairs[split]) for split in SPLITS]
    return Task(
        name=spec.name,
        group="dataset",
        pairs=tuple(pair for split in SPLITS for pair in pairs[split]),
        description=" ".join(filter(None, [spec.path, spec.config])),
        sizes=(sizes[0], sizes[1], sizes[2]),
        options=spec.options,
        format=PromptFormat("", "", lead, "\n\n"),
        unlabelled=spec.unlabelled,
    )


def _pairs(spec: DatasetSpec, body: str) -> dict[Split, list[Pair]]:
    """Prompts and answers of each of our splits."""
    theirs = list(dict.fromkeys(spec.splits.values()))
    found = find(spec.path, spec.revision, spec.config, theirs)
    used = template_columns(spec.template)
    pairs: dict[Split, list[Pair]] = {split: [] for split in SPLITS}
    for name in theirs:
        ours = [split for split in SPLITS if spec.splits.get(split) == name]
        labelled = [split for split in ours if split not in spec.unlabelled]
        columns = [*used, spec.label] if labelled else used
        rows = read(spec.path, found, name, columns)
        for split, chosen in _divide(spec, ours, rows, used):
            where = f"data set '{spec.path}', split '{name}'"
            pairs[split] = [
                (_prompt(body, row, f"{where}, row {i}"),
                 _answer(spec, row, f"{where}, row {i}") if split in labelled else "")
                for i, row in chosen
            ]
    return pairs


def _divide(spec: DatasetSpec, ours: list[Split], rows: list[Row], columns: list[str]
            ) -> Iterator[tuple[Split, list[tuple[int, Row]]]]:
    """Rows with their numbers, divided by the hash of their content, not of its wording."""
    members: dict[Split, list[tuple[int, Row]]] = {split: [] for split in ours}
    for i, row in enumerate(rows):
        part = 0
        if len(ours) > 1:
            content = json.dumps([row[c] for c in columns], default=str)
            part = seed_of("rows", content) % len(ours)
        members[ours[part]].append((i, row))
    for split, chosen in members.items():
        limit = spec.limit.get(split, len(chosen))
        if limit < len(chosen):
            rng = random.Random(seed_of("limit", spec.name, split))  # noqa: S311
            chosen = sorted(rng.sample(chosen, limit), key=lambda member: member[0])
        yield split, chosen


def _prompt(body: str, row: Row, where: str) -> str:
    for column, value in row.items():
        if value is None:
            raise UserError(f"{where}: column '{column}' is empty")
    try:
        return _Choices().vformat(body, (), row)
    except (IndexError, TypeError, KeyError) as error:
        raise UserError(f"{where}: the template names an element that a column does not have"
                        ) from error


class _Choices(string.Formatter):
    """As ``str.format``, but a list becomes lettered lines: questions differ in how many."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, list):
            return "\n".join(f"{letter}: {choice}" for letter, choice in zip(
                string.ascii_uppercase, value, strict=False))
        return format(value, format_spec)


def _answer(spec: DatasetSpec, row: Row, where: str) -> str:
    if row[spec.label] is None:
        raise UserError(f"{where}: column '{spec.label}' is empty")
    label = str(_text(row[spec.label]))
    if spec.answers is None:
        if not label.strip() or "\n" in label:
            raise UserError(f"{where}: an answer is one line of text, not {label!r}")
        return label.strip()
    if label not in spec.answers:
        raise UserError(f"{where}: label '{label}' has no answer; answers has "
                        f"{', '.join(spec.answers)}")
    return spec.answers[label]
