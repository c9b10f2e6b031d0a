"""Columns with a vocabulary hold its words and no others."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from results_folder import Folder

from prunelib.results.arrow import to_table
from prunelib.results.schemas import TABLES, description, words


@pytest.fixture
def written(folder: Folder) -> dict[str, dict[str, Any]]:
    """A row of some tables."""
    folder.intervention("base", "none", "baseline")
    folder.answers("base", "1")
    folder.attempt("u", "done", 0)
    return {table: rows[0] for (table, _), rows in folder.rows.items()}


@pytest.mark.parametrize(("table", "column", "word"), [
    ("interventions", "role", "chosne"), ("predictions", "purpose", "search "),
    ("predictions", "split", "capability"), ("units", "stage", "evaluating"),
    ("units", "status", "running"),
])  # fmt: skip
@pytest.mark.parametrize("form", ["rows", "arrow"])
def test_other_words_are_refused(
    written: dict[str, dict[str, Any]], table: str, column: str, word: str, form: str
) -> None:
    good, bad = written[table], written[table] | {column: word}
    assert to_table(table, [good]).to_pylist() == [good]
    content: Any = [good, bad]
    if form == "arrow":
        content = pa.Table.from_pylist(content, TABLES[table].remove_metadata())
    with pytest.raises(ValueError, match=rf"{table}.{column} is '{word}': known are "):
        to_table(table, content)


def test_a_run_has_one_of_five_statuses() -> None:
    assert words(TABLES["runs"].field("status")) == {
        "running", "done", "failed", "interrupted", "deadline"}


def test_descriptions_tell_every_word() -> None:
    fields = [(table, field) for table, schema in TABLES.items() for field in schema]
    closed = {(table, field.name): field for table, field in fields if words(field)}
    assert closed.keys() == {
        ("interventions", "role"), ("predictions", "purpose"), ("predictions", "split"),
        ("predictions", "scoring"),
        ("units", "stage"), ("units", "status"), ("runs", "status")}
    for field in closed.values():
        assert all(f"{word}: " in description(field) for word in words(field) or ())
