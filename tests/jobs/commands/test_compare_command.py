"""``prunelib compare`` as a user types it."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from command_line import call
from rich.console import Console

from jobs.comparison import comparison
from prunelib.results.compare.pairs import pair
from prunelib.results.compare.sides import Sides


def test_text_says_what_differs_and_in_which_answers(
    finished: Path, studied: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("compare", finished, studied) == 0
    said = capfd.readouterr().out
    assert "A  small-" in said and "B  study-" in said
    assert "attribution[0].prompts" in said and "weights_digest" in said
    assert "accuracy in % on the same prompts" in said
    assert "right in B alone" in said and "Not compared" in said


def test_numbers_alone_in_other_formats(
    finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("compare", finished, finished, "--format", "json") == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert lines and all(line["difference"] == 0 for line in lines)
    assert call("compare", finished, finished, "--format", "csv") == 0
    table = list(csv.DictReader(io.StringIO(capfd.readouterr().out)))
    assert [row["n"] for row in table] == [str(line["n"]) for line in lines]
    assert call("compare", finished, finished, "--format", "markdown") == 0
    assert capfd.readouterr().out.startswith("| model_a | model_b |")


def test_it_fits_80_columns(finished: Path, studied: Path) -> None:
    with Sides([]) as sides:
        a, b = sides.two(str(finished), str(studied))
        page = Console(width=80, file=io.StringIO())
        with page.capture() as text:
            page.print(comparison(a, b, pair(a, b, 3)))
    lines = text.get().splitlines()
    assert max(map(len, lines)) <= 80
    # No number is cut: every line of a table of differences ends in what flipped.
    task = re.compile(r" +\d+\.\d +\d+\.\d +[+-]\d+\.\d +[+-]\d+\.\d to [+-]\d+\.\d"
                      r" +([01]\.\d{3}|<\.001) +\d+/\d+")
    assert sum(bool(task.search(line)) for line in lines) >= 2


def test_a_misspelt_name_is_told_with_what_is_near(
    finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("compare", "smal-1", finished, "--results", finished) == 2
    said = capfd.readouterr().err
    assert "did you mean small-" in said and said.count("\n") == 1
