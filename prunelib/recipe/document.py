"""A recipe's YAML as plain values, each with its place: nothing is said twice, nothing is code."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from prunelib.errors import UserError, shown
from prunelib.recipe.problems import Keys, Mistake, Place, where

#: Characters, levels and values (anchors written out) beyond which a file is no recipe.
MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 30
MAX_VALUES = 100_000

#: The C parser where PyYAML has one: ten times as fast.
_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_SCALARS = {f"{_TAG}{name}" for name in ("null", "bool", "int", "float", "str", "timestamp")}
_MERGE = f"{_TAG}merge"
_EQUALS = f"{_TAG}value"  # what YAML 1.1 calls a single ``=``
_SEQUENCE, _MAPPING = f"{_TAG}seq", f"{_TAG}map"


@dataclass
class Document:
    """What a YAML text says.

    Attributes:
        content: its values; ``None`` where one is not plain data.
        mistakes: keys that are there twice, and values that are not plain data, by their path.
    """

    content: Any
    mistakes: list[Mistake]
    _root: yaml.Node

    def place(self, path: Keys, key: bool = False) -> Place:
        """Where the value at a path is, or its ``key``; or what is there of it."""
        node, mark = self._root, self._root.start_mark
        for i, part in enumerate(path):
            if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
                if part >= len(node.value):
                    break
                node = node.value[part]
                mark = node.start_mark
            elif isinstance(node, yaml.MappingNode):
                found = next(((k, v) for k, v in _pairs(node) if _spelled(k, part)), None)
                if found is None and isinstance(part, int):
                    continue  # one mapping, where a list may stand
                if found is None:
                    break
                mark = found[0].start_mark if key and i == len(path) - 1 else found[1].start_mark
                node = found[1]
        return _place(mark)


def read_document(text: str) -> Document:
    """Read YAML text. Raises :class:`UserError` for what is not YAML, or no recipe by its size."""
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"more than {MAX_CHARACTERS} characters: no recipe is so long")
    try:
        _check_depth(text)
        root = yaml.compose(text, Loader=_Parser)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise UserError(f"{_at(mark)}: {problem}" if mark else str(problem)) from error
    if root is None:
        raise UserError("the file is empty: a recipe is a mapping with at least 'name' and "
                        "'models'")
    _check_size(root)
    reader = _Reader()
    content = reader.value(root, ())
    return Document(content, reader.mistakes, root)


def _place(mark: Any) -> Place:
    return mark.line + 1, mark.column + 1


def _at(mark: Any) -> str:
    return where(_place(mark))


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Parser):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise UserError(f"{_at(event.start_mark)}: more than {MAX_DEPTH} levels, one in "
                                "another")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair


def _check_size(root: yaml.Node) -> None:
    """Whether values are finite, not too many and not too deep, with every anchor written out."""
    known: dict[int, tuple[int, int]] = {}

    def measure(node: yaml.Node, above: frozenset[int]) -> tuple[int, int]:
        if id(node) in above:
            raise UserError(f"{_at(node.start_mark)}: an anchor that holds itself")
        if id(node) not in known:
            inside = above | {id(node)}
            parts = [measure(child, inside) for child in _children(node)]
            known[id(node)] = (1 + sum(values for values, _ in parts),
                               1 + max((levels for _, levels in parts), default=0))
        return known[id(node)]

    values, levels = measure(root, frozenset())
    if values > MAX_VALUES or levels > MAX_DEPTH + 1:
        raise UserError(f"more than {MAX_VALUES} values or {MAX_DEPTH} levels with its anchors "
                        "written out: no recipe has so many")


class _Reader:
    """Values of nodes; what is wrong with one is noted, and reading goes on."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self._scalars = yaml.constructor.SafeConstructor()

    def value(self, node: yaml.Node, path: Keys) -> Any:
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQUENCE:
            return [self.value(child, (*path, i)) for i, child in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == _MAPPING:
            return self._mapping(node, path)
        if isinstance(node, yaml.ScalarNode) and node.tag == _EQUALS:
            return node.value
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            return self._scalar(node, path)
        self._note(node, path, f"tag {shown(_short(node.tag))} is not for recipes, which hold "
                               "plain values")
        return None

    def _scalar(self, node: yaml.ScalarNode, path: Keys) -> Any:
        try:
            return self._scalars.construct_object(node)
        except Exception:  # of many kinds: dates that do not exist, numbers that are none
            self._note(node, path, f"{shown(node.value)} is no {_short(node.tag).strip('!')}: "
                                   "text is written in quotes")
            return None

    def _mapping(self, node: yaml.MappingNode, path: Keys) -> dict[Hashable, Any]:
        own: dict[Hashable, Any] = {}
        first: dict[Hashable, yaml.Node] = {}
        merged: list[yaml.Node] = []
        for key, child in node.value:
            if key.tag == _MERGE:
                name: Hashable = "<<"
                merged.extend(child.value if isinstance(child, yaml.SequenceNode) else [child])
            else:
                name = self._key(key, path)
            spelled = _spelling(name)
            if spelled in first:
                self._note(key, path, f"key {shown(str(name))} is here twice, first in "
                                      f"{_at(first[spelled].start_mark)}")
            else:
                first[spelled] = key
            if key.tag != _MERGE:
                own[name] = self.value(child, (*path, _part(name)))
        return self._merged(merged, own, node, path)

    def _merged(self, merged: Sequence[yaml.Node], own: dict[Hashable, Any], node: yaml.Node,
                path: Keys) -> dict[Hashable, Any]:
        """With what ``<<`` brings; own keys replace it, and two that bring one must agree."""
        brought: dict[Hashable, Any] = {}
        for other in merged:
            content = self.value(other, path)
            if not isinstance(content, dict):
                self._note(other, path, "<< takes mappings")
                continue
            for name, value in content.items():
                if name in brought and brought[name] != value and name not in own:
                    self._note(node, path, f"two of what << takes here give "
                                           f"{shown(str(name))} different values")
                brought.setdefault(name, value)
        return brought | own

    def _key(self, node: yaml.Node, path: Keys) -> Hashable:
        value = self.value(node, path)
        if isinstance(value, Hashable):
            return value
        self._note(node, path, "a key is one value, not a list or a mapping")
        return str(node.start_mark.index)

    def _note(self, node: yaml.Node, path: Keys, text: str) -> None:
        self.mistakes.append(Mistake(path, text, _place(node.start_mark)))


def _pairs(node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """Keys and values of a mapping, last its merged ones."""
    later: list[yaml.Node] = []
    for key, child in node.value:
        if key.tag == _MERGE:
            later.extend(child.value if isinstance(child, yaml.SequenceNode) else [child])
        else:
            yield key, child
    for other in later:
        if isinstance(other, yaml.MappingNode):
            yield from _pairs(other)


def _spelled(key: yaml.Node, part: str | int) -> bool:
    return isinstance(key, yaml.ScalarNode) and str(key.value) == str(part)


def _spelling(name: Hashable) -> Hashable:
    """What two keys that mean the same have in common: ``1`` and ``'1'``, ``yes`` and ``true``."""
    return str(name).lower() if isinstance(name, bool) else str(name)


def _part(name: Hashable) -> str | int:
    return name if isinstance(name, int) else str(name)


def _short(tag: str) -> str:
    return "!!" + tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag
