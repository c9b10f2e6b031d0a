"""The page on the copier suite shows what the benchmark measured."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.copier_tables import BEGIN, END, tables

ROOT = Path(__file__).parents[2]


def test_the_page_has_the_tables_of_the_results() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "copier_suite.json").read_text())
    page = (ROOT / "docs" / "copier-suite.md").read_text()
    shown = page.partition(BEGIN)[2].partition(END)[0]
    assert shown.strip() == tables(results).strip()
