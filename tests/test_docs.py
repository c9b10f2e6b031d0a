"""The documents against the repository: what they link to and what cites them is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_shipped_recipe_that_is_named_is_there(page: Path) -> None:
    for name in re.findall(r"jobs/recipes/\w+\.yaml", page.read_text()):
        assert (ROOT / name).is_file(), name


def test_what_code_on_pages_imports_is_there() -> None:
    imports = re.compile(r"^from ((?:prunelib|cluster|jobs)[\w.]*) import ([\w, ]+)$", re.MULTILINE)
    found = [(module, name.strip()) for page in PAGES
             for module, names in imports.findall(page.read_text()) for name in names.split(",")]
    assert found
    for module, name in found:
        assert hasattr(import_module(module), name), f"{module}: {name}"


#: A citation of a section, and of a row of the table of open choices; comments break lines.
_BREAK = r"[\s#:]+"
_CITED = re.compile(rf"\bformulas\.md{_BREAK}§(\d+(?:\.\d+)?)")
_ALSO = re.compile(r"§(\d+(?:\.\d+)?)")
_ROW = re.compile(rf"§6,?{_BREAK}rows?{_BREAK}(\d+)(?:{_BREAK}and{_BREAK}(\d+))?")


def sources() -> Iterator[tuple[str, str]]:
    """Every file that may cite the formulas, with its text."""
    for folder in ("prunelib", "cluster", "jobs", "benchmarks", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".yaml"):
                yield str(path.relative_to(ROOT)), path.read_text()


def sections(page: str) -> set[str]:
    """The numbers of a page's headings: ``## 1. …`` and ``### 1.2 …``."""
    return set(re.findall(r"^##+ (\d+(?:\.\d+)?)\.? ", page, re.MULTILINE))


def rows(page: str) -> set[str]:
    """The numbers of the rows of the table of open choices."""
    table = page.partition("## 6. ")[2]
    return set(re.findall(r"^\| (\d+) \|", table, re.MULTILINE))


def test_every_cited_section_of_the_formulas_is_there() -> None:
    page = (ROOT / "docs" / "formulas.md").read_text()
    for name, text in sources():
        for cited in _CITED.findall(text):
            assert cited in sections(page), f"{name}: §{cited}"
        if "formulas.md" in text:  # `§3.1, §5.5`
            for cited in _ALSO.findall(text):
                assert cited in sections(page), f"{name}: §{cited}"
            for pair in _ROW.findall(text):
                assert set(filter(None, pair)) <= rows(page), f"{name}: §6, row {pair}"


def test_citations_are_found_across_lines() -> None:
    text = "(docs/formulas.md\n#: §4.2: 10), docs/formulas.md §6, row\n    #: 8, §6, rows 2 and 3"
    assert _CITED.findall(text) == ["4.2", "6"]
    assert _ROW.findall(text) == [("8", ""), ("2", "3")]
    assert sections("# 1.1 no\n## 6. Open\n### 1.2 Proxy\n") == {"6", "1.2"}
    assert rows("| 1 | x |\n## 6. Open\n| 12 | y |\n") == {"12"}
