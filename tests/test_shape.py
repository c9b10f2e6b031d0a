"""The shape of the code: modules and functions that can be read, and names that are told apart."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("prunelib", "cluster", "jobs", "benchmarks", "tests")
MODULE_LINES = 400
FUNCTION_LINES = 60


def modules() -> Iterator[tuple[str, str]]:
    """Path from the root, and source."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text("utf-8")


def test_modules_have_at_most_400_lines() -> None:
    long = {name for name, source in modules() if len(source.splitlines()) > MODULE_LINES}
    assert long == set(), "split these"


def test_functions_have_at_most_60_lines() -> None:
    found = [f"{name}:{node.lineno} {node.name}" for name, source in modules()
             for node in ast.walk(ast.parse(source))
             if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
             and (node.end_lineno or node.lineno) - node.lineno >= FUNCTION_LINES]
    assert found == []


def test_files_of_tests_have_names_of_their_own() -> None:
    """The tests are no packages, so pytest tells their files apart by name alone."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
