"""Tasks by name, and suites of them."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from importlib import import_module
from typing import cast

from prunelib.errors import UserError, unknown_name
from prunelib.tasks.base import Task
from prunelib.tasks.sources.base import Source, Suites, Tasks

#: Where tasks come from, besides the data sets of a recipe: modules of ``prunelib.tasks.sources``,
#: one line each.
SOURCES = (
    "benchmark",
    "proxies",
    "out_of_distribution",
    "capability",
    "classification",
)

_SOURCES = [cast("Source", import_module(f"prunelib.tasks.sources.{name}")) for name in SOURCES]
TASKS: Tasks = {name: make for source in _SOURCES for name, make in source.TASKS.items()}
SUITES: Suites = {name: tasks for source in _SOURCES for name, tasks in source.SUITES.items()}


#: Between the names of tasks that are mixed.
MIXED = "+"


@functools.cache
def get_task(name: str) -> Task:
    """The bundled task of this name, or a mixture of several, as in ``list_first+to_upper``.

    Raises :class:`~prunelib.errors.UserError`, with near matches, if there is none.
    """
    if MIXED in name:
        parts = tuple(get_task(part) for part in name.split(MIXED))
        return Task(name, "proxy", (), f"in turn: {', '.join(part.name for part in parts)}",
                    parts=parts)
    if name not in TASKS:
        raise unknown_name("task", name, [*TASKS, *SUITES])
    return TASKS[name]()


def free_name(name: str, whose: str) -> str:
    """The name of a task that a recipe defines. :class:`UserError` if a bundled task has it."""
    if name in TASKS:
        raise UserError(f"'{name}' is the name of a bundled task: give {whose} another")
    return name


def task_names(selection: str | Iterable[str]) -> list[str]:
    """Expand names of suites (:data:`SUITES`) and of tasks, in order, once each."""
    chosen = [selection] if isinstance(selection, str) else list(selection)
    names: dict[str, None] = {}
    for name in chosen:
        for member in SUITES.get(name, (name,)):
            names[get_task(member).name] = None
    return list(names)
