"""What ``prunelib query`` and ``prunelib show`` print, on every kind of terminal."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from command_line import call
from rich.console import Console

from jobs.answer import print_table
from prunelib.results.query import query

#: Every kind of value that a table may hold, and some that look like markup.
ODD = """
SELECT 1 AS a, 2 AS a, 3 AS a_2, '[/INST] [bold]x' AS marked, ['p', 'q'] AS listed,
       {'k': [1]} AS parts, MAP {'m': 1} AS mapped, 'nan'::DOUBLE AS missing,
       '-inf'::DOUBLE AS least,
       sum(3) AS total, 1.50::DECIMAL(9, 2) AS money, INTERVAL 2 DAY AS span,
       DATE '2026-01-02' AS day,
       'a' || chr(10) || 'b' || chr(27) || '[2J' AS lines, NULL AS nothing, 'é–字' AS letters
"""


def said(finished: Path, sql: str, capfd: pytest.CaptureFixture[str], form: str) -> str:
    assert call("query", sql, "--results", finished, "--format", form) == 0
    return capfd.readouterr().out


def test_json_has_every_column_and_only_what_json_knows(
    finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    row = json.loads(said(finished, ODD, capfd, "json"), parse_constant=refuse)
    assert (row["a"], row["a_2"], row["a_2_2"]) == (1, 2, 3)
    assert row["missing"] is row["least"] is row["nothing"] is None
    assert row["listed"] == ["p", "q"] and row["parts"] == {"k": [1]}
    assert row["total"] == 3 and row["money"] == 1.5 and row["day"] == "2026-01-02"
    assert row["marked"] == "[/INST] [bold]x" and row["letters"] == "é–字"


def test_csv_holds_lists(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names, values = csv.reader(io.StringIO(said(finished, ODD, capfd, "csv")))
    row = dict(zip(names, values, strict=True))
    assert (row["a"], row["a_2"], row["a_2_2"]) == ("1", "2", "3")
    assert json.loads(row["listed"]) == ["p", "q"] and json.loads(row["parts"]) == {"k": [1]}
    assert row["marked"] == "[/INST] [bold]x" and row["letters"] == "é–字"


def test_cells_of_a_table_are_text_and_nothing_is_cut(
    finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = said(finished, ODD, capfd, "table")
    assert "[/INST] [bold]x" in text and r"a\nb\x1b[2J" in text and len(text.splitlines()) == 3
    digest = said(finished, "select intervention, repeat('x', 900) as wide from interventions "
                            "where role = 'chosen' limit 1", capfd, "table")
    (chosen,) = query(finished, "select intervention from interventions where role = 'chosen' "
                                "limit 1")["intervention"].to_pylist()
    assert chosen in digest and "x" * 900 in digest


@pytest.mark.parametrize(("width", "as_records"), [(80, True), (300, False)])
def test_a_narrow_terminal_gets_records(
    width: int, as_records: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = pa.table({"one": ["x" * 64, "y"], "other": ["[z]" * 20, "v"], "number": [1.23456, 2]})
    file = io.StringIO()
    print_table(answer, Console(width=width, file=file, force_terminal=True, color_system=None))
    text = file.getvalue() + capsys.readouterr().out
    assert "x" * 64 in text and "[z]" * 20 in text and "1.235" in text
    assert (len(text.splitlines()) == 7) is as_records


def test_what_one_looks_at_first_fits_80_columns(
    finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("query", "--results", finished) == 0
    first = capfd.readouterr().out
    assert first.split()[:7] == ["model", "method", "layer", "rate", "accuracy", "copying", "gain"]
    model = max(len(m) for m in query(finished, "select model from overview")["model"].to_pylist())
    widest = len("reference/llama-copier")
    assert all(len(line) - model + widest <= 80 for line in first.splitlines())
    everything = query(finished, "select round(accuracy, 3) as a from leaderboard")["a"]
    assert query(finished, "select accuracy from overview")["accuracy"] == everything


def test_the_closing_tables_are_shown_again(
    finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("show", finished) == 0
    text = capfd.readouterr().out
    assert "baseline" in text and "copied" in text and ": done, " in text
    assert call("show", finished, "--run", "nothing") == 2
    assert "unknown run 'nothing'" in capfd.readouterr().err


SHELL = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("settings", [
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
])
def test_a_terminal_without_utf8_ends_nothing(settings: dict[str, str], finished: Path) -> None:
    for arguments in (["show", str(finished)], ["query", ODD, "--results", str(finished)],
                      ["query", ODD, "--results", str(finished), "--format", "json"]):
        done = subprocess.run([sys.executable, "-m", "jobs.cli", *arguments], env=SHELL | settings,
                              capture_output=True, check=False)
        assert done.returncode == 0 and not done.stderr, done.stderr.decode()
        assert done.stdout.isascii()


@pytest.mark.parametrize("form", ["table", "csv", "json", "parquet"])
def test_a_reader_that_goes_ends_a_query_without_a_word(form: str, finished: Path) -> None:
    command = [sys.executable, "-m", "jobs.cli", "query", "--format", form, "--results",
               str(finished), "select range, repeat('x', 99) from range(30000)"]
    with subprocess.Popen(command, env=SHELL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as reading:
        assert reading.stdout is not None and reading.stderr is not None
        assert reading.stdout.read(10)
        reading.stdout.close()
        assert reading.stderr.read() == b"" and reading.wait() == 0


def test_a_full_disk_is_one_line(finished: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-m", "jobs.cli", "query", "select 1 as a",
                               "--results", str(finished)], env=SHELL, stdout=full,
                              stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert b"cannot be written: No space left" in done.stderr


@pytest.mark.parametrize("command", [
    ["report", "--out", "{file}/figures"],
    ["export", "reference/llama", "--intervention", "3f", "--out", "{file}/pruned"],
    ["export", "reference/llama", "--intervention", "3f", "--out", "{file}"],
])
def test_places_that_cannot_be_written_are_found_first(
    command: list[str], finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    filled = [word.format(file=tmp_path / "file") for word in command]
    assert call(*filled, "--results", finished) == 2
    text = capfd.readouterr().err
    assert text.count("\n") == 1 and ("cannot write to" in text or "exists" in text)
