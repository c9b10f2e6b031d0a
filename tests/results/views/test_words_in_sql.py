"""The SQL of the views compares columns with words of their vocabulary only."""

from __future__ import annotations

import re

import pytest

from prunelib import vocabulary
from prunelib.results.views.base import View
from prunelib.results.views.registry import VIEWS

WORDS = {
    "role": vocabulary.ROLES,
    "purpose": vocabulary.PURPOSES,
    "method": vocabulary.REFERENCE_METHODS,
    "status": vocabulary.ATTEMPT_STATUSES,
}
COLUMN = rf"\b({'|'.join(WORDS)})\b"
#: A column, how it is compared, and the rest up to the end of the word or list.
COMPARED = re.compile(
    COLUMN + r"\s*(?:=|<>|!=|(?:NOT\s+)?LIKE|(?:NOT\s+)?IN|IS\s+(?:NOT\s+)?DISTINCT\s+FROM)"
    r"\s*(\([^)]*\)|'[^']*')", re.IGNORECASE)
#: A map from words of a column to others.
MAPPED = re.compile(r"\bmap\s*\{([^}]*)\}\[(?:\w+\.)?" + COLUMN + r"\]", re.IGNORECASE)


def words_compared(sql: str) -> set[tuple[str, str]]:
    """(column, word) for every word that a column is compared with."""
    found = {(column, word) for column, compared in COMPARED.findall(sql)
             for word in re.findall(r"'([^']*)'", compared)}
    return found | {(column, word) for pairs, column in MAPPED.findall(sql)
                    for word in re.findall(r"'([^']*)'\s*:", pairs)}


def unknown(sql: str) -> set[tuple[str, str]]:
    return {(column, word) for column, word in words_compared(sql) if word not in WORDS[column]}


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_words_of_views_are_in_the_vocabulary(view: View) -> None:
    assert unknown(view.sql) == set()


def test_every_comparison_is_seen_and_a_typo_in_it() -> None:
    seen = set()
    for view in VIEWS:
        for column, word in words_compared(view.sql):
            seen.add((column, word))
            typo = view.sql.replace(f"'{word}'", f"'{word}x'")
            assert (column, f"{word}x") in unknown(typo), (view.name, word)
    assert seen >= {("role", role) for role in vocabulary.ROLES}
    assert seen >= {("purpose", purpose) for purpose in vocabulary.PURPOSES if purpose != "pool"}
    assert seen >= {("method", "random"), ("status", "done"), ("status", "failed")}


@pytest.mark.parametrize("sql", [
    "SELECT 1 WHERE role = 'chosne'",
    "SELECT 1 WHERE l.role IN ('chosen',\n  'chosne')",
    "SELECT 1 WHERE a.role<>'chosne' AND x",
    "SELECT 1 WHERE role NOT IN ('chosne')",
    "SELECT 1 WHERE role LIKE 'chosne'",
    "SELECT map {'chosen': 'a', 'chosne': 'b'}[l.role]",
])
def test_every_form_of_comparison_is_read(sql: str) -> None:
    assert unknown(sql) == {("role", "chosne")}
