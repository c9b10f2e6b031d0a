"""What is wrong with a recipe: every mistake that pydantic and the checks found, each once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from prunelib.errors import UserError, shown

#: Keys and list places from the top of a recipe to one of its values.
Keys = tuple[str | int, ...]
#: Line and column, counted from 1.
Place = tuple[int, int]

#: How pydantic names a section's class.
_OURS = re.compile(r" or instance of \w+")


@dataclass(frozen=True)
class Mistake:
    """One mistake in a recipe.

    Attributes:
        path: where; as much of it as is known.
        text: what is wrong, on one line.
        place: line and column, where they are known already.
        key: whether the key is wrong, not its value.
        named: whether the text names the path itself.
    """

    path: Keys
    text: str
    place: Place | None = None
    key: bool = False
    named: bool = True

    @property
    def line(self) -> str:
        """The text with its path in front, unless it says where by itself."""
        return self.text if self.named or not self.path else f"{dotted(self.path)}: {self.text}"


class Mistakes(UserError):
    """Everything that was found wrong with a recipe, a line each."""

    def __init__(self, found: Iterable[Mistake], lines: Iterable[str] = ()) -> None:
        self.found = tuple(dict.fromkeys(found))
        super().__init__("\n".join(dict.fromkeys(lines or (m.line for m in self.found))))


class Findings:
    """Collects what is wrong while checks go on."""

    def __init__(self) -> None:
        self.found: list[Mistake] = []

    @contextmanager
    def at(self, *path: str | int) -> Iterator[None]:
        """A part of the recipe whose checks end at their first mistake."""
        try:
            yield
        except Mistakes as error:
            self.found += error.found
        except UserError as error:
            self.found.append(Mistake(path, str(error)))

    def end(self) -> None:
        """Raise :class:`Mistakes` if there are any."""
        if self.found:
            raise Mistakes(self.found)


def where(place: Place) -> str:
    """A place as messages write it."""
    return f"line {place[0]}, column {place[1]}"


def dotted(path: Keys) -> str:
    """A path as messages write it, such as ``search.rates.1``."""
    return ".".join(str(part) for part in path)


def mistakes_of(error: ValidationError, kind: type[BaseModel], content: Any, at: Keys = ()
                ) -> list[Mistake]:
    """Every mistake that pydantic found, one for each value.

    Args:
        error: what pydantic raised.
        kind: the section that was read.
        content: what it was read from.
        at: path of the section in the recipe.
    """
    found: dict[Keys, list[Mistake]] = {}
    for problem in error.errors(include_url=False):
        path = (*at, *_path(problem["loc"], content, problem["type"]))
        for mistake in _mistakes(problem, kind, path, at):
            found.setdefault(mistake.path, []).append(mistake)
    return [_joined(some) for some in found.values()]


def _mistakes(problem: Any, kind: type[BaseModel], path: Keys, at: Keys) -> list[Mistake]:
    raised = problem.get("ctx", {}).get("error")
    if isinstance(raised, Mistakes):
        return [Mistake((*path, *m.path), m.text, m.place, m.key, m.named) for m in raised.found]
    if isinstance(raised, UserError):
        return [Mistake(path, str(raised))]
    if problem["type"] == "extra_forbidden":
        known = _section_at(kind, problem["loc"][:-1])
        return [Mistake(path, unknown_key(dotted(path), known.model_fields if known else ()),
                        key=True)]
    given = "" if problem["type"] == "missing" else (
        f" (got {'nothing' if problem['input'] is None else shown(problem['input'])})")
    return [Mistake(path, f"{_OURS.sub('', problem['msg'])}{given}", named=False)]


def _joined(some: list[Mistake]) -> Mistake:
    """One mistake of those about one value, which may be of several types."""
    texts = dict.fromkeys(mistake.text for mistake in some)
    first = some[0]
    if len(texts) == 1 or first.key:
        return first
    return Mistake(first.path, "; or ".join(texts), first.place, named=first.named)


def _path(loc: tuple[str | int, ...], content: Any, kind: str) -> Keys:
    """Where a value is in what was given: without the parts that pydantic adds."""
    path: list[str | int] = []
    here: Any = content
    for i, part in enumerate(loc):
        inside: Any = dict(enumerate(here)) if isinstance(here, list | tuple) else here
        if isinstance(inside, dict) and part in inside:
            here = inside[part]
        elif not (kind == "missing" and i == len(loc) - 1):
            continue
        path.append(part)
    return tuple(path)


def unknown_key(place: str, known: Iterable[str]) -> str:
    """A key that no section has, with the nearest one that there is."""
    names = list(known)
    near = get_close_matches(place.rpartition(".")[2][:80], names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known keys are {', '.join(names)}"
    return f"unknown key {shown(place)}: {hint}"


def _section_at(kind: type[BaseModel], loc: tuple[str | int, ...]) -> type[BaseModel] | None:
    section: type[BaseModel] | None = kind
    for part in loc:
        if isinstance(part, str) and section is not None and part in section.model_fields:
            section = _section_in(section.model_fields[part].annotation)
    return section


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, whatever is wrapped around it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)

