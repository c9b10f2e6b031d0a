"""What lm-evaluation-harness has: names of tasks, tags and groups, found in its YAML files.

The harness itself reads all of its files at each start, which takes longer than a small run. Here
they are only looked through for names, and one task's files are read when it is asked for.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from prunelib.errors import UserError, unknown_name

#: In front of a task's name where tasks of prunelib are named too.
PREFIX = "lm_eval:"

_KEY = re.compile(r"""^["']?(task|group|class|tag|include)["']?[ \t]*:[ \t]*"""
                  r"(.*(?:\n[ \t]*- .*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """A name of the catalogue: a task or group with its YAML file, or the tasks with a tag."""

    name: str
    kind: Literal["task", "group", "tag"]
    path: Path | None
    members: tuple[str, ...] = ()


def version() -> str:
    """Version of the harness. Raises :class:`UserError` if it is not installed."""
    try:
        return metadata.version("lm_eval")
    except metadata.PackageNotFoundError as error:
        raise UserError("tasks of lm-evaluation-harness need it to be installed: pip install "
                        "'prunelib[lm-eval]'") from error


@functools.cache
def catalogue(folders: tuple[str, ...] = ()) -> dict[str, Entry]:
    """Name → what it stands for: the harness's own, and those of a user's folders, which win.

    Raises :class:`UserError` if the harness or a folder is not there.
    """
    version()
    spec = importlib.util.find_spec("lm_eval")
    places = [Path(place) / "tasks" for place in (spec and spec.submodule_search_locations) or ()]
    for folder in folders:
        if not Path(folder).is_dir():
            raise UserError(f"lm_eval.folders: '{folder}' is no folder")
        places.append(Path(folder).resolve())
    found: dict[str, Entry] = {}
    for place in places:
        found |= _names(place)
    return found


def leaves(name: str, folders: tuple[str, ...] = ()) -> list[str]:
    """The tasks that a name stands for: itself, or those of a tag or group, each once.

    Raises :class:`UserError`, with near matches, if there is no such name, and for a group that
    asks for its tasks in another way than they are.
    """
    known = catalogue(folders)
    if name not in known:
        raise unknown_name("task of lm-evaluation-harness", name, known)
    entry = known[name]
    if entry.kind == "task":
        return [name]
    members = entry.members if entry.kind == "tag" else _members(entry)
    return leaves_of(members, folders)


def leaves_of(names: Iterable[str], folders: tuple[str, ...] = ()) -> list[str]:
    """The tasks that several names stand for, each once. Raises as :func:`leaves`."""
    return list(dict.fromkeys(leaf for name in names for leaf in leaves(name, folders)))


def search(word: str, folders: tuple[str, ...] = ()) -> list[Entry]:
    """Entries whose name has a word in it, by name; of a misspelt one those with near names.

    Raises :class:`UserError`, with near matches, if there are none.
    """
    known = catalogue(folders)
    found = [known[name] for name in sorted(known) if word.lower() in name.lower()]
    if not found:
        raise unknown_name("task of lm-evaluation-harness", word, known)
    return found


def _names(place: Path) -> dict[str, Entry]:
    """Names in the YAML files below a folder; of two files with one name the first counts."""
    found: dict[str, Entry] = {}
    tags: dict[str, list[str]] = {}
    read: dict[str, dict[str, str]] = {}
    for path in sorted(place.glob("**/*.yaml"), key=lambda path: path.as_posix()):
        keys = _keys(str(path), read)
        kind: Literal["task", "group"] = (
            "group" if "group" in keys and "class" not in keys else "task")
        name = _plain(keys.get(kind, ""))
        if not name or name in found:
            continue
        found[name] = Entry(name, kind, path)
        for tag in _listed(keys.get("tag", "")) if kind == "task" else ():
            tags.setdefault(tag, []).append(name)
    for tag, members in tags.items():
        found.setdefault(tag, Entry(tag, "tag", None, tuple(members)))
    return found


def _keys(path: str, known: dict[str, dict[str, str]]) -> dict[str, str]:
    """What a file, or one that it includes, says for the keys that matter here, as it stands.

    ``known``: files that were read already.
    """
    if path in known:
        return known[path]
    known[path] = {}  # a file that includes itself adds nothing
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}  # the harness says what is wrong, if the task is asked for
    own: dict[str, str] = dict(_KEY.findall(text))
    included: dict[str, str] = {}
    for other in _listed(own.pop("include", "")):
        included |= _keys(os.path.normpath(Path(path).parent / other), known)
    known[path] = included | own
    return known[path]


def _plain(value: str) -> str:
    """A YAML scalar without its quotes and comment."""
    return re.sub(r"(^|\s)#.*$", "", value).strip().strip("\"'")


def _listed(text: str) -> Iterator[str]:
    """Names in a YAML scalar, or in a list in either style."""
    for part in re.split(r"\n[ \t]*- |[\[\],]", text):
        if name := _plain(part):
            yield name


def _members(entry: Entry) -> Sequence[str]:
    """Names in a group's file."""
    from lm_eval.tasks._yaml_loader import load_yaml

    content = load_yaml(str(entry.path), resolve_func=False)
    return list(_of_group(entry.name, content))


def _of_group(group: str, content: dict[str, Any]) -> Iterator[str]:
    members: Iterable[Any] = content["task"]
    for member in [members] if isinstance(members, str) else members:
        if isinstance(member, str):
            yield member
        elif "group" in member and isinstance(member.get("task"), list):
            yield from _of_group(group, member)
        elif set(member) <= {"task", "group"}:
            yield member.get("task") or member["group"]
        else:
            raise UserError(f"group '{group}' of lm-evaluation-harness changes its tasks, such as "
                            f"'{member.get('task') or member.get('group')}': name tasks instead")
