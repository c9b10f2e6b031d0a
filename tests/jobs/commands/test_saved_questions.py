"""Saved questions, several folders, and the formats of ``prunelib query``."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from command_line import call

from jobs.answer import print_excel, print_markdown
from prunelib.results.query import query
from prunelib.results.questions import QUESTIONS


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_saved_question_is_answered(name: str, finished: Path) -> None:
    found = query(finished, QUESTIONS[name].sql)
    assert found.num_columns > 3
    assert (found.num_rows > 0) == (name not in ("tasks_helped", "copied_answers", "failures")
                                    ) or found.num_rows > 0


def test_a_question_by_name(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("query", "--list") == 0
    said = capfd.readouterr().out
    assert all(name in said for name in QUESTIONS)
    assert call("query", "--name", "copying_by_shot", "-r", finished, "-f", "csv") == 0
    lines = list(csv.DictReader(io.StringIO(capfd.readouterr().out)))
    assert lines and {line["tasks"] for line in lines} == {"2"}
    assert call("query", "--name", "copying_by_shots", "-r", finished) == 2
    assert "copying_by_shot" in capfd.readouterr().err
    assert call("query", "select 1", "--name", "failures", "-r", finished) == 2
    assert call("query", "select 1") == 2
    assert "--results" in capfd.readouterr().err


def test_several_folders_are_one(finished: Path, tmp_path: Path,
                                 capfd: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    for table in ("runs", "run_units", "units", "predictions", "interventions"):
        [one], [both] = (query(places, f"SELECT count(*) AS n FROM {table}").to_pylist()
                         for places in (finished, [finished, copy]))
        assert one == both  # the same units
    sql = "SELECT * EXCLUDE (accuracy) FROM leaderboard"
    assert query([finished, copy], sql).equals(query(finished, sql))
    lost = next((copy / "predictions").glob("evaluate-*.parquet"), None) or next(
        (copy / "predictions").glob("*.parquet"))
    lost.unlink()
    shutil.rmtree(copy / "predictions" / "merged", ignore_errors=True)
    counts = [query(places, "SELECT count(*) AS n FROM predictions").to_pylist()[0]["n"]
              for places in (copy, [copy, finished], finished)]
    assert counts[0] < counts[1] == counts[2]  # each has what the other lacks
    assert query([copy, finished], sql).equals(query(finished, sql))
    assert call("query", "select 1 as one", "-r", finished, "-r", tmp_path / "missing") == 2
    assert "missing" in capfd.readouterr().err


def test_markdown(capfd: pytest.CaptureFixture[str]) -> None:
    print_markdown(pa.table({"a|b": ["x|y\nz", None], "n": [1.23456, 2]}))
    assert capfd.readouterr().out.splitlines() == [
        r"| a\|b | n |", "| --- | ---: |", "| x\\|y\\\\nz | 1.235 |", "|  | 2 |"]


@pytest.mark.parametrize(("value", "written"), [
    ("plain text, with a comma", "plain text, with a comma"),
    ("demo-9ebd91c7", "demo-9ebd91c7"),
    ("", ""),
    ("=1+1", '="=1+1"'), ("+49", '="+49"'), ("-x", '="-x"'), ("@home", '="@home"'),
    ("\t=1", '="\t=1"'), ("007", '="007"'), ("1-2", '="1-2"'), ("3.10", '="3.10"'),
    ("1e5", '="1e5"'), ("MARCH1", '="MARCH1"'), ("true", '="true"'),
    ('=say "hi"', '="=say ""hi"""'), ("=" + "x" * 300, "'=" + "x" * 300), ("=a\nb", "'=a\nb"),
    ("naïve", "naïve"),
    (12345, "12345"), (2**60, f'="{2**60}"'), (0.25, "0.25"), (True, "True"), (None, ""),
])
def test_excel_takes_a_text_for_a_text(value: object, written: str,
                                       capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    print_excel(pa.table({"column": pa.array([value]), "list": [["=x"]]}))
    said = capfdbinary.readouterr().out
    assert said.startswith(b"\xef\xbb\xbf") and b"\r\n" in said
    names, cells = csv.reader(io.StringIO(said.decode("utf-8-sig"), newline=""))
    assert names == ["column", "list"]
    assert cells == [written, '="[""=x""]"']
