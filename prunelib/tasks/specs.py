"""Tasks that a recipe defines itself: data sets and files of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Tag, TypeAdapter

from prunelib.errors import UserError
from prunelib.tasks import datasets
from prunelib.tasks.base import Task
from prunelib.tasks.datasets import DatasetSpec
from prunelib.tasks.pairs import PairsSpec, files_of, notes_on_pairs, pairs_task
from prunelib.tasks.registry import SUITES, TASKS

_DATASET, _PAIRS = "data set", "pairs file"


def _kind(value: Any) -> str:
    if isinstance(value, PairsSpec):
        return _PAIRS
    keys = [str(key) for key in value] if isinstance(value, dict) else []
    near = "path" not in keys and get_close_matches("pairs", keys, n=1, cutoff=0.8)
    return _PAIRS if near else _DATASET


#: An entry of the section ``tasks``.
TaskSpec = Annotated[
    Annotated[DatasetSpec, Tag(_DATASET)] | Annotated[PairsSpec, Tag(_PAIRS)],
    Discriminator(_kind),
]
_ADAPTER: TypeAdapter[DatasetSpec | PairsSpec] = TypeAdapter(TaskSpec)


def build_task(spec: DatasetSpec | PairsSpec) -> Task:
    """The task that a section is. Raises :class:`UserError` if its files do not give one."""
    return pairs_task(spec) if isinstance(spec, PairsSpec) else datasets.build_task(spec)


def stored_task(content: str) -> Task:
    """The task of a section as JSON, as it travels to workers."""
    return build_task(_ADAPTER.validate_json(content))


def pinned(spec: DatasetSpec | PairsSpec) -> DatasetSpec | PairsSpec:
    """The same wherever it is read: a commit for a revision, an absolute local path.

    Raises :class:`UserError` if it is nowhere.
    """
    if isinstance(spec, PairsSpec):
        pairs_task(spec)
        return spec.model_copy(update={"pairs": str(Path(spec.pairs).resolve())})
    return datasets.pinned(spec)


def notes_on(spec: DatasetSpec | PairsSpec) -> list[str]:
    """What a user should know of how the files of a section were read."""
    notes = notes_on_pairs(spec) if isinstance(spec, PairsSpec) else ()
    return [f"task {spec.name}: {note}" for note in notes]


def with_folders(content: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe in which each folder of pairs is its files, in ``tasks`` and ``evaluate.tasks``.

    Args:
        content: a recipe as it is written; what is wrong with it in other ways stays in it.

    Raises:
        UserError: a folder has no files of pairs, or has the name of a task or a suite.
    """
    given = content.get("tasks")
    suites: dict[str, list[str]] = {}
    entries: list[Any] = []
    for entry in given if isinstance(given, list | tuple) else [given]:
        has = entry if isinstance(entry, dict) else {}
        name, place = has.get("name"), has.get("pairs")
        if not (isinstance(name, str) and isinstance(place, str) and _is_folder(place)):
            entries.append(entry)
            continue
        if name in TASKS or name in SUITES:
            raise UserError(f"tasks: '{name}' is the name of a bundled task or suite: give the "
                            "folder of pairs another")
        files = files_of(name, place)
        suites[name] = list(files)
        entries += [has | {"name": task, "pairs": file} for task, file in files.items()]
    if not suites:
        return dict(content)
    evaluate = content.get("evaluate")
    changed = {**content, "tasks": entries}
    if isinstance(evaluate, dict) and isinstance(evaluate.get("tasks"), str | list | tuple):
        names = evaluate["tasks"]
        names = [names] if isinstance(names, str) else names
        changed["evaluate"] = {**evaluate, "tasks": [
            task for name in names
            for task in (suites.get(name, [name]) if isinstance(name, str) else [name])]}
    return changed


def _is_folder(place: str) -> bool:
    try:
        return Path(place).is_dir()
    except (OSError, ValueError):  # a name that is too long, or has a zero byte
        return False
