"""The pages show what the benchmarks measured."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.copier_tables import BEGIN, END, tables
from benchmarks.search_strategies import RESULT, page

ROOT = Path(__file__).parents[2]


def shown(name: str) -> str:
    return (ROOT / "docs" / name).read_text().partition(BEGIN)[2].partition(END)[0].strip()


def test_the_page_on_the_copier_suite_has_the_tables_of_the_results() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "copier_suite.json").read_text())
    assert shown("copier-suite.md") == tables(results).strip()


def test_the_page_on_choices_has_the_table_of_the_search_strategies() -> None:
    assert shown("choices.md") == page(json.loads(RESULT.read_text())["searches"])
