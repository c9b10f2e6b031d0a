"""``prunelib query`` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import call


def test_queries_in_every_format(finished: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    sql = "select model, method, n, accuracy from leaderboard order by method"
    said = {}
    for output in ("table", "csv", "json", "parquet"):
        assert call("query", sql, "--results", finished, "--format", output) == 0
        said[output] = capfdbinary.readouterr().out
    lines = said["json"].decode().splitlines()
    assert [json.loads(line)["method"] for line in lines] == [
        "integrated_gradients", "none", "random", "random_search"]
    assert said["csv"].decode().splitlines()[0] == '"model","method","n","accuracy"'
    assert b"random_search" in said["table"]
    assert said["parquet"].startswith(b"PAR1") and said["parquet"].endswith(b"PAR1")


def test_sql_from_stdin(finished: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "query", "-", "--results", str(finished), "-f", "csv"],
        input="select count(*) as n from runs", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ['"n"', "1"]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select * from leaderbord", "leaderboard"),
        ("selec 1", "syntax error"),
        ("copy (select 1) to '/tmp/x.csv'", "read-only"),
        ("select * from read_csv('/etc/passwd')", "disabled"),
    ],
)
def test_bad_sql_is_one_line(
    sql: str, message: str, finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("query", sql, "--results", finished) == 2
    said = capfd.readouterr().err
    assert message in said and said.count("\n") == 1


def test_a_query_against_an_empty_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]
                                         ) -> None:
    assert call("query", "select 1", "--results", tmp_path) == 2
    assert capfd.readouterr().err.count("\n") == 1
