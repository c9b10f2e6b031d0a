"""What differs in how two sides were made: recipe, versions, weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from prunelib.results.compare.sides import Side, matched

_MODEL = """
SELECT DISTINCT revision, weights_digest, tokenizer_digest, bos, chat_template
FROM models JOIN _scope USING (unit_id, model) WHERE run = $1 AND model = $2
"""


class Change(NamedTuple):
    """Something that two sides have of their own; ``None`` where one has nothing of that name."""

    what: str
    a: Any
    b: Any


def recipe_changes(a: Side, b: Side) -> list[Change]:
    """Keys of the recipes, with every default filled in, whose values differ."""
    return _changes(*(dict(_flat(json.loads(side.run["resolved"]))) for side in (a, b)))


def version_changes(a: Side, b: Side) -> list[Change]:
    """Versions of prunelib and of packages, and hardware, that differ."""
    return _changes(*({"prunelib": side.run["code_version"], **json.loads(side.run["packages"]),
                       **json.loads(side.run["hardware"])} for side in (a, b)))


def weight_changes(a: Side, b: Side) -> dict[str, list[Change]]:
    """Of each two models that are compared, what of their files and start tokens differs."""
    found = {}
    for one, other in matched(a.models, b.models, str)[0]:
        known = [side.connection.sql(_MODEL, params=[side.name, model]).to_arrow_table().to_pylist()
                 for side, model in ((a, one), (b, other))]
        found[one if one == other else f"{one} and {other}"] = _changes(
            *(rows[0] if rows else {} for rows in known))
    return found


def _changes(a: dict[str, Any], b: dict[str, Any]) -> list[Change]:
    return [Change(key, a.get(key), b.get(key)) for key in dict.fromkeys([*a, *b])
            if a.get(key) != b.get(key)]


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Keys of mappings and places in lists of mappings as one key; other lists stay whole."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for i, inner in enumerate(value):
            yield from _flat(inner, f"{key}[{i}]")
    else:
        yield key, value
