"""The pages of docs/reference against the code, section by section, in both directions."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from jobs.reference_pages.page import Page, table
from jobs.reference_pages.pages import pages
from jobs.reference_pages.recipe import every_section, field_meanings, recipe_page
from prunelib.recipe.recipe import Recipe
from prunelib.results.query import describe_tables

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
PAGES = {page.file: page for page in pages()}


@pytest.mark.parametrize("file", PAGES)
def test_a_page_says_what_the_code_says(file: str) -> None:
    """``make docs`` writes the pages."""
    assert PAGES[file].differences((FOLDER / file).read_text("utf-8")) == []


def test_the_section_that_differs_is_named() -> None:
    page = Page("p.md", "Title", "Intro.", {"`one`": "1", "`two`": "2", "`three`": "3"})
    text = page.text()
    assert page.differences(text) == []
    assert page.differences(text.replace("Intro", "Outro")) == ["p.md: 'title' differs"]
    assert page.differences(text.replace("\n2\n", "\n5\n")) == ["p.md: '`two`' differs"]
    assert page.differences(text.replace("## `one`\n\n1\n\n", "")) == [
        "p.md: '`one`' is not on the page"]
    assert page.differences(text + "\n## `four`\n\n4\n") == ["p.md: '`four`' is not in the code"]
    other = Page("p.md", "Title", "Intro.", dict(reversed(page.sections.items())))
    assert page.differences(other.text()) == ["p.md: the sections are in another order"]


def test_cells_of_a_table_stay_cells() -> None:
    assert table(("a", "b"), [("x|y", "two\nlines")]).splitlines() == [
        "| a | b |", "| --- | --- |", "| x\\|y | two lines |"]


def rows(text: str) -> dict[str, list[str]]:
    """First cell of each row, without its backticks → the other cells."""
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines()
             if line.startswith("| `")]
    return {first.strip(" `"): [cell.strip() for cell in cells] for first, *cells in lines}


def test_every_key_has_a_type_a_default_and_a_meaning() -> None:
    empty = [f"{heading}: {key}" for heading, text in recipe_page().sections.items()
             for key, cells in rows(text).items() if len(cells) != 3 or not all(cells)]
    assert empty == []


def test_sections_are_followed_to_the_innermost() -> None:
    sections = recipe_page().sections
    assert {"Top level", "`attribution.objective`", "`controls.fine_tuning`", "`tasks`",
            "`importance.removal`"} <= set(sections)
    assert rows(sections["`search`"])["examples"][:2] == ["whole number ≥ 1", "`200`"]
    assert rows(sections["Top level"])["models"][:2] == [
        "list: section [`models`](#models)", "required"]


def test_every_name_that_a_recipe_can_choose_is_listed() -> None:
    """Names that a validator knows, of which the schema knows nothing."""
    sections = recipe_page().sections
    for place, key, names in (
        ("`attribution`", "method", "METHODS"), ("`search`", "strategy", "STRATEGIES"),
        ("`importance.removal`", "heads", "RANKINGS"), ("`importance.removal`", "orders", "ORDERS"),
    ):
        module = sys.modules[every_section()[place.strip("`")].__module__]
        listed = rows(sections[place])[key][0]
        for name in getattr(module, names):
            assert f"`{name}`" in listed, (place, key, name)


def test_a_meaning_is_the_comment_above_the_field() -> None:
    assert field_meanings(Recipe)["deadline"].startswith("When results are wanted: `07:00` (the")


def test_every_table_and_view_has_its_columns() -> None:
    sections = PAGES["tables.md"].sections
    for info in describe_tables():
        found = rows(sections[f"`{info.name}`"])
        assert [(name, cells[0]) for name, cells in found.items()] == [
            (column.name, column.type.lower()) for column in info.columns]
        assert all(cells[1] for cells in found.values()), info.name
