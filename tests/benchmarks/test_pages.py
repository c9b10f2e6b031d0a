"""The pages show what the benchmarks measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import prunelib
from benchmarks import choice_rules, coverage, lm_eval_parity, other_libraries, precision
from benchmarks.copier_tables import BEGIN, END, tables
from benchmarks.result_tables import TABLE, rows_of, write
from benchmarks.search_strategies import RESULT, page
from prunelib.results.query import _connect

ROOT = Path(__file__).parents[2]


def shown(name: str) -> str:
    page = (ROOT / "docs" / "results" / name).read_text()
    return page.partition(BEGIN)[2].partition(END)[0].strip()


def test_the_page_on_the_copier_suite_has_the_tables_of_the_results() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "copier_suite.json").read_text())
    assert shown("copier-suite.md") == tables(results).strip()


def test_the_page_on_search_strategies_has_the_table_of_the_results() -> None:
    assert shown("search-strategies.md") == page(json.loads(RESULT.read_text())["searches"])


def test_the_page_on_statistics_has_the_tables_of_the_results() -> None:
    assert shown("statistics.md") == coverage.page(json.loads(coverage.RESULT.read_text()))


def test_the_page_on_python_has_the_table_of_the_results() -> None:
    page = (ROOT / "docs" / "how-to" / "python.md").read_text()
    assert other_libraries.table(json.loads(other_libraries.RESULT.read_text())) in page


def test_the_page_on_the_harness_has_the_table_of_the_results() -> None:
    page = (ROOT / "docs" / "how-to" / "lm-eval.md").read_text()
    assert lm_eval_parity.table(json.loads(lm_eval_parity.RESULT.read_text())["rows"]) in page


def test_libraries_do_the_same_work() -> None:
    """The scores of two prompts by Captum's nodes and to a tolerance, and the same answers."""
    task = prunelib.task(other_libraries.TASK)
    texts = [example.prompt for example in task.prompts(2, shots=3, split="attribute")]
    ours, theirs = other_libraries.Prunelib(), other_libraries.Captum()
    ours.load()
    theirs.load()
    exact = theirs.attribute(texts, other_libraries.EXACT)
    assert other_libraries.far(ours.attribute(texts, other_libraries.DEFAULT), exact) < 0.15
    off = [int(i) for i in exact.argsort()[-30:]]
    assert other_libraries.first_lines(ours.answers(texts, off)) == other_libraries.first_lines(
        theirs.answers(texts, off))
    assert other_libraries.lines_of(ours) < other_libraries.lines_of(theirs)


def test_the_page_on_precision_has_the_tables_of_the_results() -> None:
    found = json.loads(precision.RESULT.read_text())
    assert shown("precision.md") == precision.tables(
        found["recall"], found["halves"], "reference/smollm2")


def test_the_page_on_rules_of_choice_has_the_tables_of_the_results() -> None:
    results = json.loads(choice_rules.RESULT.read_text())["results"]
    assert shown("choice.md") == choice_rules.page(results)


PAGES = sorted((ROOT / "docs" / "results").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tables_have_the_columns_of_the_query_above_them(page: Path) -> None:
    with _connect({}) as connection:
        for table in TABLE.finditer(page.read_text()):
            header = rows_of(connection, table["sql"]).splitlines()[0]
            assert table["rows"].splitlines()[0] == header
            assert len(table["rows"].splitlines()) > 3


def test_a_table_is_written_from_results_of_its_recipe(studied: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    query = "select score, count(*) as n from component_importance group by all order by all"
    for recipe, written in (("study", 1), ("other", 0)):
        text = (f"<!-- table: {recipe} -->\n```sql\n{query}\n```\n\n| old |\n<!-- table: end -->\n"
                "after\n")
        page.write_text(text)
        assert write(page, studied) == written
        if not written:
            assert page.read_text() == text
    page.write_text(text.replace("other", "study"))
    write(page, studied)
    lines = page.read_text().splitlines()
    assert lines[5:7] == ["| score | n |", "| --- | --- |"] and lines[-1] == "after"
    assert any(line.startswith("| oracle | ") for line in lines)
