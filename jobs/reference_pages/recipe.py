"""The page of the recipe: every key of every section, from the classes that read it.

What a key means is the comment above its field (lines that begin with ``#:``); types, limits and
defaults are those of the JSON schema that pydantic makes.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import AfterValidator, BaseModel, Tag

from jobs.reference_pages.page import Page, code, links, prose, table
from prunelib.recipe.recipe import Recipe
from prunelib.recipe.studies import STUDIES, load_study
from prunelib.tasks import SUITES

Section = type[BaseModel]
_TOP = "Top level"
_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_NAMES = {"string": "text", "integer": "whole number", "number": "number",
          "boolean": "`true` or `false`"}


def recipe_page() -> Page:
    """The top level, then every section under the keys that lead to it."""
    places = {section: code(place) if place else _TOP
              for place, section in every_section().items()}
    return Page(
        "recipe.md", "The recipe",
        "Every key of a recipe file. Only `name` and `models` are required; `prunelib plan` "
        "prints a recipe with every default filled in. A key that does not exist is an error. "
        "Where a list can stand, most keys also take a single value.\n\n"
        f"Sections: {links(places.values())}.",
        {heading: _text(section, places) for section, heading in places.items()})


def every_section() -> dict[str, Section]:
    """Keys that lead to a section, joined by dots, and the section; the recipe itself is first."""
    found = dict(_sections(Recipe, ()))
    for study, settings in _studies().items():
        found |= dict(_sections(settings, (study,)))
    return found


def _studies() -> dict[str, Section]:
    """Sections that are no fields of the recipe: study → the class of its settings."""
    return {name: load_study(name).settings for name in STUDIES if name not in Recipe.model_fields}


def _sections(section: Section, keys: tuple[str, ...]) -> Iterator[tuple[str, Section]]:
    yield ".".join(keys), section
    for key, field in section.model_fields.items():
        kinds = dict([*_tags(field.annotation).items()][1:])  # the first has the key alone
        for inner in _inside(field.annotation):
            kind = f" ({kinds[inner]})" if inner in kinds else ""
            yield from _sections(inner, (*keys, f"{key}{kind}"))


def _tags(annotation: Any) -> dict[Section, str]:
    """Sections among which one key chooses, and what each is called."""
    found = {get_args(annotation)[0]: part.tag for part in getattr(annotation, "__metadata__", ())
             if isinstance(part, Tag)}
    for argument in get_args(annotation):
        found |= _tags(argument)
    return found


def _inside(annotation: Any) -> Iterator[Section]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _inside(argument)


def _text(section: Section, places: dict[Section, str]) -> str:
    schema = section.model_json_schema()
    sections = {found.__name__: f"section {links([place])}" for found, place in places.items()}
    meanings = field_meanings(section)
    rows = []
    for key, field in section.model_fields.items():
        has = schema["properties"][key]
        kind = _type(has, sections)
        if names := _choices(field.annotation) or _choices(field.metadata):
            kind = kind.replace(_NAMES["string"], ", ".join(map(code, dict.fromkeys(names))))
        default = "required" if key in schema.get("required", ()) else _default(has)
        rows.append((code(key), kind, default, meanings.get(key, "")))
    for study, settings in _studies().items() if section is Recipe else ():
        rows.append((code(study), f"`true` or {sections[settings.__name__]}", "none",
                     _summary(settings)))
    return (f"{prose(inspect.getdoc(section) or '')}\n\n"
            f"{table(('key', 'type', 'default', 'meaning'), rows)}")


def field_meanings(section: Section) -> dict[str, str]:
    """Key → the ``#:`` comment above its field, in the class itself or one that it extends.

    A key that stands for a section needs none: it means what the section's docstring says first.
    """
    found = {key: _summary(inner) for key, field in section.model_fields.items()
             for inner in _inside(field.annotation)}
    for kind in reversed(section.__mro__):
        if not issubclass(kind, BaseModel) or kind is BaseModel:
            continue
        source = Path(inspect.getsourcefile(kind) or "").read_text("utf-8")
        lines = source.splitlines()
        body = next(node.body for node in ast.walk(ast.parse(source))
                    if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
        for node in body:
            if (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
                    and (text := _comment_above(lines, node.lineno - 1))):
                found[node.target.id] = prose(text)
    return found


def _summary(section: Section) -> str:
    return prose(inspect.getdoc(section) or "").partition("\n\n")[0]


def _comment_above(lines: list[str], index: int) -> str:
    start = index
    while lines[start - 1].lstrip().startswith("#:"):
        start -= 1
    return " ".join(line.lstrip().removeprefix("#:").strip() for line in lines[start:index])


def _choices(metadata: Any) -> list[str]:
    """The names that validators of ``one_of`` accept, also where they stand inside a list."""
    found: list[str] = []
    for part in (*get_args(metadata), *(metadata if isinstance(metadata, list) else ())):
        if isinstance(part, AfterValidator):
            found += inspect.getclosurevars(part.func).nonlocals.get("names", ())
        found += _choices(part)
        found += _choices(list(getattr(part, "__metadata__", ())))
    return found


def _type(has: dict[str, Any], sections: dict[str, str]) -> str:
    """A part of a JSON schema in words."""
    if "$ref" in has:
        return sections[has["$ref"].rpartition("/")[2]]
    if several := has.get("anyOf", has.get("oneOf")):
        kinds = [_type(part, sections) for part in several if part.get("type") != "null"]
        return " or ".join(kinds)
    if "const" in has:
        return code(has["const"])
    if "enum" in has:
        return ", ".join(map(code, has["enum"]))
    if has.get("prefixItems"):
        return f"list of {len(has['prefixItems'])}: {_type(has['prefixItems'][0], sections)}"
    if has.get("type") == "array":
        return f"list: {_type(has['items'], sections)}"
    if has.get("type") == "object":
        keys = has.get("propertyNames", {"type": "string"})
        return f"mapping: {_type(keys, sections)} → {_type(has['additionalProperties'], sections)}"
    limits = " and ".join(f"{sign} {has[name]}" for name, sign in _LIMITS.items() if name in has)
    return " ".join(filter(None, (_NAMES[has["type"]], limits)))


def _default(has: dict[str, Any]) -> str:
    value = has["default"]
    if value is None or value in ([], {}):
        return "none"
    if "$ref" in json.dumps(has):
        return "its defaults"
    suite = next((name for name, tasks in SUITES.items() if value == list(tasks)), None)
    if suite is not None:
        return f"the suite {code(suite)}"
    return code(value if isinstance(value, str) else json.dumps(value))
