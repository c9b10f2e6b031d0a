"""Data sets as tasks: a section of the recipe becomes labelled prompts in three splits.

A template turns a row into a prompt. It is one string with the row's columns in braces and, at
its end, ``{answer}``, where the answer begins::

    Review: {text}
    Verdict: {answer}

A column that holds a list is written as one lettered line for each element (``A: …``). With
``choices`` the log-likelihoods of each row's own choices are compared.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

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
from prunelib.tasks.base import SPLITS, Pair, PromptFormat, Task
from prunelib.tasks.choices import Choices, ChoiceScoring
from prunelib.tasks.dataset_columns import PREPARATIONS
from prunelib.tasks.dataset_files import Row, find, is_local, read, resolve_revision
from prunelib.tasks.dataset_presets import KNOWN
from prunelib.tasks.dataset_questions import as_text, question, used_columns
from prunelib.tasks.registry import free_name
from prunelib.tasks.right_answers import OwnScorer, scorer_source
from prunelib.tasks.templates import has_choice, template_columns
from prunelib.vocabulary import Split


def _texts(value: Any) -> Any:
    return {as_text(k): v for k, v in value.items()} if isinstance(value, dict) else value


def _list_of_texts(value: Any) -> Any:
    return [as_text(item) for item in value] if isinstance(value, list | tuple) else value


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
    template: str | None = None
    #: In place of a template: the column with the input, which is then written in the recipe's
    #: ``format``.
    input: str | None = None
    #: What stands between demonstrations, where there is a template.
    separator: str = "\n\n"
    #: The column with the label.
    label: str = "label"
    #: Label → answer. Without it the label is the answer, and answers are not chosen among
    #: options.
    answers: Annotated[dict[str, str] | None, BeforeValidator(_texts)] = None
    #: The choices of each row's question, whose log-likelihoods are compared: a column that is a
    #: list, such as ``endings`` or ``choices[text]``, or a list of texts with columns in braces.
    choices: str | tuple[str, ...] | None = None
    #: The choices' labels in their order, one of which ``label`` is (or several, as a list): a
    #: column that is a list, or a list. By default 0, 1 and so on.
    choice_labels: Annotated[
        str | tuple[str, ...] | None, BeforeValidator(_list_of_texts)] = None
    #: Where the template has ``{choice}``, which puts the choices into the prompt: the text after
    #: it, with columns in braces, whose log-likelihood is compared.
    continuation: str | None = None
    #: How answers are read. ``likelihood``: the choice with the highest log-likelihood, the
    #: default with ``choices``; ``likelihood_per_character`` and ``likelihood_per_byte`` divide it
    #: by the choice's length. ``greedy_match``, without choices: right if every token of the
    #: answer is the most probable one. ``greedy`` and ``options`` as in ``evaluate.scoring``, by
    #: default that of the recipe.
    scoring: ChoiceScoring | Literal["greedy", "options"] | None = None
    #: Columns to be made first, by the name of a data set that needs them, such as ``hellaswag``
    #: (:mod:`prunelib.tasks.dataset_columns`).
    prepare: str | None = None
    #: The most rows of a split; which ones is drawn at random, always the same.
    limit: dict[Split, Annotated[int, Field(ge=1)]] = {}
    #: Whether answers that differ in case alone are the same.
    ignore_case: bool = False
    #: A function of the user's that says whether an answer is right, where a model writes it or
    #: chooses among ``answers``: ``package.module:function``.
    correct: OwnScorer = None
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
        return free_name(name, "the data set")

    @field_validator("template")
    @classmethod
    def _readable(cls, template: str | None) -> str | None:
        if template is not None:
            template_columns(template)
        return template

    @field_validator("prepare")
    @classmethod
    def _known(cls, prepare: str | None) -> str | None:
        if prepare is not None and prepare not in PREPARATIONS:
            raise unknown_name("preparation", prepare, PREPARATIONS)
        return prepare

    @field_validator("answers")
    @classmethod
    def _one_line(cls, answers: dict[str, str] | None) -> dict[str, str] | None:
        for label, answer in (answers or {}).items():
            if not answer or answer != answer.strip() or "\n" in answer:
                raise UserError(f"the answer of label '{label}' is one line of text without "
                                f"blanks around it, not {answer!r}")
        return answers

    @model_validator(mode="after")
    def _fits(self) -> DatasetSpec:
        if (self.template is None) == (self.input is None):
            raise UserError(f"data set '{self.name}' needs template (how a row is written) or "
                            "input (a column), one of them")
        inside = self.template is not None and has_choice(self.template)
        if inside != (self.continuation is not None) or (inside and self.choices is None):
            raise UserError("a template with {choice} needs choices and continuation, and a "
                            "continuation needs {choice} in the template")
        if self.choices is not None and self.answers is not None:
            raise UserError("choices are the answers of each row: leave out answers, and say in "
                            "choice_labels which label is which choice")
        if self.choices is None and self.choice_labels is not None:
            raise UserError("choice_labels are the labels of choices, of which there are none")
        if self.choices is not None and self.scoring in ("greedy", "options", "greedy_match"):
            raise UserError(f"scoring {self.scoring} is for data sets without choices")
        if self.choices is None and self.scoring in (
                "likelihood", "likelihood_per_character", "likelihood_per_byte"):
            raise UserError(f"scoring {self.scoring} compares choices: say what they are "
                            "(choices: …)")
        if self.correct is not None and (self.choices is not None
                                         or self.scoring == "greedy_match"):
            raise UserError("correct is about answers that are written or are among answers; "
                            "a choice of a row's own is right by its place: leave it out")
        if self.scoring == "options" and self.answers is None:
            raise UserError("scoring options chooses among answers: say what they are")
        return self

    @property
    def options(self) -> tuple[str, ...]:
        """The answers, each once, in the order of the recipe."""
        return tuple(dict.fromkeys((self.answers or {}).values()))


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
    return _build(spec.model_dump_json(), scorer_source(spec.correct))


@functools.cache
def _build(content: str, source: str) -> Task:
    spec = DatasetSpec.model_validate_json(content)
    questions = _questions(spec)
    sizes = [len(questions[split]) for split in SPLITS]
    every = [question for split in SPLITS for question in questions[split]]
    body = (spec.template or "").removesuffix("{answer}")
    return Task(
        name=spec.name,
        group="dataset",
        pairs=tuple(pair for pair, _ in every),
        description=" ".join(filter(None, [spec.path, spec.config])),
        sizes=(sizes[0], sizes[1], sizes[2]),
        options=spec.options,
        ignore_case=spec.ignore_case,
        format=None if spec.template is None else PromptFormat(
            "", "", body[len(body.rstrip(" ")):], spec.separator),
        unlabelled=spec.unlabelled,
        choices=tuple(choices for _, choices in every) if any(c for _, c in every) else (),
        scoring=spec.scoring or ("" if spec.choices is None else "likelihood"),
        correct=spec.correct or "",
        correct_source=source,
    )


def _questions(spec: DatasetSpec) -> dict[Split, list[tuple[Pair, Choices]]]:
    """Prompts, answers and choices of each of our splits."""
    theirs = list(dict.fromkeys(spec.splits.values()))
    found = find(spec.path, spec.revision, spec.config, theirs)
    used = used_columns(spec, labelled=False)
    questions: dict[Split, list[tuple[Pair, Choices]]] = {split: [] for split in SPLITS}
    for name in theirs:
        ours = [split for split in SPLITS if spec.splits.get(split) == name]
        labelled = [split for split in ours if split not in spec.unlabelled]
        rows = read(spec.path, found, name, used_columns(spec, bool(labelled)))
        for split, chosen in _divide(spec, ours, rows, used):
            questions[split] = [
                question(spec, row, f"data set '{spec.path}', split '{name}', row {i}",
                         split in labelled)
                for i, row in chosen
            ]
    return questions


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
