"""The report as a page: its numbers are those of SQL, it loads nothing, texts stay texts."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from parsed import check_table, embedded, page, report, tables
from report_folder import HOSTILE, add_choice
from results_folder import Folder

from prunelib.results.query import query
from prunelib.results.report import examples as examples_module
from prunelib.results.report.examples import PAGE
from prunelib.results.report.sections import MOST_ROWS


def titles(document: object) -> list[str]:
    return [one.text_content() for one in document.xpath("//section/h2")]  # type: ignore[attr-defined]


def test_every_cell_is_what_the_sql_beside_it_gives(hostile: Path, studied: Path) -> None:
    for place, least in ((hostile, 6), (studied, 7)):
        found = tables(page(report(place).html))
        assert len(found) >= least
        for table in found:
            check_table(place, table, MOST_ROWS)


def test_a_section_is_there_if_it_has_rows_or_figures(hostile: Path, studied: Path) -> None:
    always = ["Examples", "Methods", "Recipe and versions"]
    assert titles(page(report(hostile).html)) == [
        "Summary", "Leaderboard", "Tasks and shots", "Search", "Attribution and its precision",
        "Failures", "Costs", *always]
    assert titles(page(report(studied).html)) == [
        "Summary", "Leaderboard", "Tasks and shots", "Heads and FFNs", "Removal",
        "Rank correlations", "Costs", *always]


def test_what_a_table_leaves_out_is_said(studied: Path) -> None:
    html = page(report(studied).html)
    long = [table for table in tables(html) if len(table.rows) == MOST_ROWS]
    assert long
    for table in long:
        total = len(query(studied, table.sql))
        assert f"The first {MOST_ROWS} of {total} rows" in html.text_content()


def test_the_file_needs_no_other_and_runs_only_its_own_scripts(hostile: Path) -> None:
    document = page(report(hostile).html)
    for element in document.iter():
        for name in ("src", "href", "action", "data", "srcset"):
            value = element.get(name, "#")
            assert value.startswith(("#", "data:image/svg+xml;base64,", "figures/")), value
        assert not [name for name in element.attrib if name.startswith("on")]
        assert not element.get("style")
    (rule,) = document.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    assert "default-src 'none'" in rule and "unsafe" not in rule and "connect-src 'none'" in rule
    run = [one for one in document.xpath("//script") if not one.get("type")]
    for element in (*run, *document.xpath("//style")):
        digest = hashlib.sha256(element.text.encode()).digest()
        assert f"'sha256-{base64.b64encode(digest).decode()}'" in rule
    assert rule.count("sha256-") == len(run) + 1


def test_hostile_texts_stay_texts(hostile: Path) -> None:
    """Whoever reads the page as HTML finds them as texts, and no element that they would make."""
    made = report(hostile)
    document = page(made.html)
    assert HOSTILE not in made.html
    assert all(one.get("src", "").startswith("data:") for one in document.xpath("//img"))
    text = document.text_content()
    assert HOSTILE in text and "49" not in re.findall(r"\{\{.*?\}\}|\b49\b", text)
    (choices,) = document.xpath("//script[@id='choices']")
    assert "<" not in choices.text
    (row, *_) = embedded(document)
    assert row["task"] == HOSTILE and row["demonstrations"] == [HOSTILE, "y"]


def test_figures_are_readable_files_and_pictures_of_the_page(hostile: Path) -> None:
    made = report(hostile)
    assert {one.section for one in made.drawings.values()} == {"leaderboard", "tasks", "search"}
    starts = {"pdf": b"%PDF", "png": b"\x89PNG", "svg": b"<?xml"}
    for name in made.files:
        content = made.file(name)
        assert content is not None and content.startswith(starts[name.rpartition(".")[2]])
        assert content == report(hostile).file(name)
    for bad in ("x.pdf", "../../etc/passwd", "", f"{next(iter(made.drawings))}.exe"):
        assert made.file(bad) is None
    document = page(made.html)
    for image in document.xpath("//img"):
        svg = ElementTree.fromstring(base64.b64decode(image.get("src").partition(",")[2]))
        assert "prefers-color-scheme: dark" in "".join(svg.itertext())
        assert not [one for one in svg.iter() if one.tag.endswith("script")]
        assert image.get("alt")


def test_examples_of_a_file_are_those_of_the_sql(hostile: Path) -> None:
    made = report(hostile)
    assert embedded(page(made.html)) == [
        {name: value for name, value in row.items()} for row in query(
            hostile, f"{made.examples.sql} ORDER BY model, task, shots, g.seed, example, method, "
                     "control_seed, query").to_pylist()]
    assert "are left out" not in made.html


def test_a_file_holds_so_many_examples_and_says_what_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples_module, "_MOST", 50)
    folder = Folder(tmp_path / "out")
    add_choice(folder, [22, 18])
    folder.write()
    made = report(folder.root)
    document = page(made.html)
    found = embedded(document)
    assert 25 < len(found) <= 50 and made.examples.total == 160
    assert f"the first {len(found)} of 160" in document.text_content()
    places = {method: sorted(row["example"] for row in found if row["method"] == method)
              for method in ("none", "ig", "random")}
    assert places["none"] == places["ig"] == list(range(len(places["ig"])))
    assert len(places["random"]) == len(places["ig"])  # of both sets together


def test_pages_of_examples_are_filtered(hostile: Path) -> None:
    examples = report(hostile).examples
    everything = query(hostile, examples.sql).to_pylist()
    for wanted in ({}, {"flipped": "gained"}, {"flipped": "lost", "method": "random"},
                   {"method": "ig", "task": HOSTILE}, {"task": "' OR 1=1 --"}):
        expected = [row for row in everything
                    if all(row[name] == value for name, value in wanted.items())]
        rows, number = [], 0
        while (found := examples.page(wanted, number))["rows"]:
            assert found["total"] == len(expected)
            rows += found["rows"]
            number += 1
        assert number == -(-len(expected) // PAGE)
        key = [(row["method"], row["control_seed"], row["example"]) for row in rows]
        assert len(set(key)) == len(rows) == len(expected)
        assert all(row in expected for row in rows)


def test_a_large_run_stays_below_five_megabytes(tmp_path: Path) -> None:
    """Tables are cut, examples are packed: twenty tasks with long prompts, 16,000 answers."""
    folder = Folder(tmp_path / "out")
    for i in range(20):
        for shots in range(5):
            many = [f"demonstration {i} {j} " * 4 for j in range(10)]
            changes = {"task": f"task_{i:02d}", "shots": shots, "demonstrations": many,
                       "answers": [str(j) for j in range(10)]}
            if not (i or shots):
                add_choice(folder, [22, 18], **changes)
                continue
            for name, right in (("base", 20), ("ig", 30), ("r0", 22), ("r1", 18)):
                folder.answers(name, "1" * right + "0" * (40 - right), **changes)
    folder.write()
    made = report(folder.root)
    assert made.examples.total == 16_000
    assert len(made.html.encode()) < 5_000_000
    assert len(embedded(page(made.html))) > 1000
