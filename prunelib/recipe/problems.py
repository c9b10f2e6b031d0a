"""What is wrong with a recipe, on one line: the first mistake that pydantic found."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def first_problem(error: ValidationError, kind: type[BaseModel], content: Any, at: str = ""
                  ) -> str:
    """The first mistake, with its place and, for a key, near matches.

    Args:
        error: what pydantic raised.
        kind: the section that was read.
        content: what it was read from.
        at: place of the section in the recipe.
    """
    problem = error.errors()[0]
    loc = problem["loc"]
    if (loc[1:2] == (0,) and isinstance(content, dict)
            and not isinstance(content.get(str(loc[0])), list)):
        loc = loc[:1] + loc[2:]  # one mapping, where a list may stand
    place = ".".join(str(part) for part in ((at, *loc) if at else loc))
    if problem["type"] != "extra_forbidden":
        return f"{place}: {problem['msg']} (got {problem['input']!r})"
    section: type[BaseModel] | None = kind
    for part in problem["loc"][:-1]:
        if isinstance(part, str) and section is not None:
            section = _section_in(section.model_fields[part].annotation)
    return unknown_key(place, section.model_fields if section else ())


def unknown_key(place: str, known: Iterable[str]) -> str:
    """A key that no section has, with the nearest one that there is."""
    names = list(known)
    near = get_close_matches(place.rpartition(".")[2], names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known keys are {', '.join(names)}"
    return f"unknown key '{place}': {hint}"


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, whatever is wrapped around it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)
