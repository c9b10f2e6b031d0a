"""Files of pairs as tasks: word lists, and the benchmark files that papers publish.

A file is a mapping of inputs to outputs, a list of objects or of two-element lists (JSON, or a
line each), or a table (CSV, TSV). Texts reach prompts and answers as they stand in the file.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from prunelib.errors import UserError, unknown_name
from prunelib.tasks.base import Task
from prunelib.tasks.registry import free_name
from prunelib.tasks.right_answers import OwnScorer, scorer_source
from prunelib.tasks.text_files import Mapping, as_columns, delimited, json_lines, json_value

#: What files of pairs are called, and what parts the fields of a table.
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_LINES = (".jsonl", ".ndjson")
ENDINGS = (".json", *_LINES, *_DELIMITERS)
#: Names by which columns are found, in this order.
_USUAL = (("input", "output"), ("source", "target"), ("x", "y"), ("query", "answer"),
          ("question", "answer"), ("prompt", "completion"), ("word", "answer"))  # fmt: skip
#: All tasks of pairs that share an input have it in the same split.
_ORIGIN = "pairs"
#: A text with its place in the file.
_Placed = tuple[str, Any, Any]


class PairsSpec(BaseModel):
    """A task from a file of pairs: JSON, JSON lines, CSV or TSV.

    A JSON file is a mapping of inputs to outputs, a list of objects, or a list of two-element
    lists. The pairs are split by the hash of their input, a quarter for `attribute`, a quarter for
    `search` and half for `report`, and are written in the recipe's `format`. An input that occurs
    again keeps its first output, and `prunelib validate` says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Name of the task. Where ``pairs`` is a folder, every file in it and below it is a task:
    #: ``NAME_FILE``, or ``NAME_FOLDER_FILE``; ``NAME`` in ``evaluate.tasks`` means all of them.
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    #: The file, or a folder of such files.
    pairs: str
    #: The column (key, number in a file without names) of the inputs; by default a usual name
    #: (input, source, x, query, question, prompt, word), else the first column.
    input: str | int | None = None
    #: The column of the outputs; by default a usual name (output, target, y, answer, completion),
    #: else the second column.
    output: str | int | None = None
    #: Whether the first line of a CSV or TSV file has the names of its columns.
    header: bool = True
    #: No demonstration carries the gold answer, so that copying is always an error.
    gold_not_in_prompt: bool = False
    #: A function of the user's that says whether an answer is right: ``package.module:function``.
    correct: OwnScorer = None

    @model_validator(mode="before")
    @classmethod
    def _keys(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                if key not in cls.model_fields:
                    raise unknown_name("key of a file of pairs", str(key), cls.model_fields)
        return value

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        return free_name(name, "the pairs")


def files_of(name: str, folder: str) -> dict[str, str]:
    """The files of pairs in a folder and below it, by the names of their tasks, in order.

    Raises :class:`UserError` if there are none.
    """
    root = Path(folder)
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in ENDINGS
                   and path.is_file()
                   and not any(part.startswith(".") for part in path.relative_to(root).parts))
    if not files:
        raise UserError(f"folder '{folder}' has no files of pairs: they end in "
                        f"{', '.join(ENDINGS)}")
    found: dict[str, str] = {}
    for path in files:
        parts = path.relative_to(root).with_suffix("").parts
        task = "_".join([name, *(re.sub(r"[^A-Za-z0-9_.-]", "_", part) for part in parts)])
        if task in found:
            raise UserError(f"pairs '{found[task]}' and '{path}' would both be task '{task}': "
                            "rename one")
        found[task] = str(path)
    return found


def pairs_task(spec: PairsSpec) -> Task:
    """The task that a file of pairs is. Raises :class:`UserError` if it cannot be read."""
    return _loaded(spec)[0]


def notes_on_pairs(spec: PairsSpec) -> tuple[str, ...]:
    """What a user should know of how a file was read. Raises :class:`UserError`."""
    return _loaded(spec)[1]


def _loaded(spec: PairsSpec) -> tuple[Task, tuple[str, ...]]:
    """The task and the notes on a file, which is read again only when it has changed."""
    path = Path(spec.pairs)
    try:
        state = path.stat()
        if path.is_dir():
            raise UserError(f"'{spec.pairs}' is a folder")
        return _read(spec.model_dump_json(), state.st_mtime_ns, state.st_size,
                     scorer_source(spec.correct))
    except UserError:
        raise
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a text file (UTF-8)"
        raise UserError(f"cannot read pairs '{spec.pairs}': {reason}") from error


def _missing(path: Path) -> UserError:
    folder = path.parent
    there = [p.name for p in folder.iterdir() if p.suffix.lower() in ENDINGS or p.is_dir()
             ] if folder.is_dir() else []
    if not there:
        return UserError(f"file of pairs '{path}' does not exist")
    return unknown_name(f"file of pairs in '{folder}':", path.name, there)


@functools.cache
def _read(content: str, _changed: int, _size: int, source: str
          ) -> tuple[Task, tuple[str, ...]]:
    spec = PairsSpec.model_validate_json(content)
    rows, note = _rows(spec)
    notes = [f"{len(rows)} rows", *filter(None, [note])]
    found: dict[str, str] = {}
    again: list[str] = []
    others: list[str] = []
    blanks = 0
    for place, given, answer in rows:
        where = f"pairs '{spec.pairs}', {place}"
        x, y = _text(given, "input", where), _text(answer, "output", where)
        if "\n" in y or "\r" in y:
            raise UserError(f"{where}: an output is one line of text, not {y!r}")
        blanks += (x, y) != (x.strip(), y.strip())
        if x not in found:
            found[x] = y
        elif found[x] == y:
            again.append(place)
        else:
            others.append(f"{place}: {_short(x)} is {_short(found[x])} above and {_short(y)} here")
    if not found:
        raise UserError(f"pairs '{spec.pairs}' is empty")
    if again:
        notes.append(f"{_count(len(again), 'pair')} said again ({again[0]}): taken once")
    if others:
        notes.append(f"{_count(len(others), 'row')} with an input that has another output above: "
                     f"the first is taken ({others[0]})")
    if blanks:
        notes.append(f"{_count(blanks, 'pair')} with blanks around a text: they are kept")
    task = Task(
        name=spec.name,
        group="pairs",
        pairs=tuple(found.items()),
        description=spec.pairs,
        gold_not_in_prompt=spec.gold_not_in_prompt,
        origin=_ORIGIN,
        correct=spec.correct or "",
        correct_source=source,
    )
    return task, tuple(notes)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")


def _text(value: Any, what: str, where: str) -> str:
    if isinstance(value, str | int) and str(value).strip():
        return str(value)
    if value is None or isinstance(value, str):
        raise UserError(f"{where}: the {what} is empty")
    kind = "a list" if isinstance(value, list) else "an object"
    raise UserError(f"{where}: the {what} is {kind}, not one text")


def _rows(spec: PairsSpec) -> tuple[list[_Placed], str]:
    """Inputs and outputs with their places, and which columns they are where that was guessed."""
    path = Path(spec.pairs)
    where = f"pairs '{spec.pairs}'"
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise UserError(f"{where}: a file of pairs ends in {', '.join(ENDINGS)}")
    if ending in _DELIMITERS:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [(f"line {number}", fields)
                     for number, fields in delimited(file, where, _DELIMITERS[ending])]
        names: Sequence[str | int] = range(len(lines[0][1]) if lines else 0)
        if spec.header and lines:
            names, lines = lines[0][1], lines[1:]
        if len(set(names)) < len(names):
            raise UserError(f"{where}: two columns have one name")
        return _columns(spec, where, names, [
            (place, dict(zip(names, fields, strict=True))) for place, fields in lines])
    text = path.read_text("utf-8-sig")
    if ending in _LINES:
        found = [(f"line {number}", value) for number, value in json_lines(text, where)]
        return _from_list(spec, where, found)
    content = json_value(text, where, again=True) if text.strip() else []
    if isinstance(content, Mapping):
        table = as_columns(content)
        if table is None:
            if spec.input is not None or spec.output is not None:
                raise UserError(f"{where} is a mapping of inputs to outputs: it has no columns")
            return [(f"key '{key}'", key, value) for key, value in content.members], ""
        content = table
    if not isinstance(content, list):
        raise UserError(f"{where}: pairs are a mapping, a list of objects or a list of lists")
    return _from_list(spec, where, [(f"row {i}", row) for i, row in enumerate(content)])


def _from_list(spec: PairsSpec, where: str, rows: list[tuple[str, Any]]
               ) -> tuple[list[_Placed], str]:
    """Pairs of a list of objects or of two-element lists."""
    names: dict[str | int, None] = {}
    objects: list[tuple[str, dict[Any, Any]]] = []
    for place, row in rows:
        if isinstance(row, list) and len(row) == 2:
            row = dict(enumerate(row))
        elif not isinstance(row, dict):
            raise UserError(f"{where}, {place}: not a pair: a row is an object or a list of two "
                            "texts")
        names.update(dict.fromkeys(row))
        objects.append((place, row))
    return _columns(spec, where, list(names), objects)


def _columns(spec: PairsSpec, where: str, names: Sequence[str | int],
             rows: list[tuple[str, dict[Any, Any]]]) -> tuple[list[_Placed], str]:
    """The input and the output of every row."""
    if not rows:
        raise UserError(f"{where} is empty")
    for key, column in (("input", spec.input), ("output", spec.output)):
        if column is not None and column not in names:
            raise unknown_name(f"{key} column of {where}", str(column), map(str, names))
    if len(names) < 2:
        raise UserError(f"{where} has one column, {names[0]!r}: pairs need two")
    source, target = next(_candidates(spec, names))
    if source == target:
        raise UserError(f"{where}: input and output are one column, {source!r}")
    # A mapping's keys, the only two elements and usual names need no word.
    guessed = spec.input is None and spec.output is None and not any(
        (str(source).lower(), str(target).lower()) == pair for pair in _USUAL)
    found = [(place, row.get(source), row.get(target)) for place, row in rows]
    told = guessed and list(names) != [0, 1]
    return found, f"input is column {source!r}, output is {target!r}" if told else ""


def _candidates(spec: PairsSpec, names: Sequence[str | int]
                ) -> Iterator[tuple[str | int, str | int]]:
    """Input and output column, the best guess first; what the recipe says stands."""
    usual = {str(name).lower(): name for name in names}
    for x, y in _USUAL:
        source = usual.get(x) if spec.input is None else spec.input
        target = usual.get(y) if spec.output is None else spec.output
        if source is not None and target is not None and source != target:
            yield source, target
    source, target = spec.input, spec.output
    if source is None:
        source = next(name for name in names if name != target)
    if target is None:
        target = next(name for name in names if name != source)
    yield source, target
