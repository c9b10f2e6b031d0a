"""``prunelib shell`` on a terminal and off it, and ``prunelib catalog``."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
from command_line import call

from prunelib.results.query import describe_tables, query

ROOT = Path(__file__).parents[3]
COUNT = "select count(*) as answers from predictions;"


class Terminal:
    """A program on a terminal of its own, which is its controlling one: Ctrl-C reaches it."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "jobs.cli", *map(str, arguments)],
            stdin=slave, stdout=slave, stderr=slave, close_fds=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "LINES": "12",
                              "COLUMNS": "100"} | environment)
        os.close(slave)
        self.said = ""

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 120
        while text not in self.said:
            if time.monotonic() > deadline:
                self.process.kill()
                pytest.fail(self.said)
            if select.select([self.master], [], [], 1)[0]:
                try:
                    self.said += os.read(self.master, 4096).decode(errors="replace")
                except OSError:  # it has ended
                    assert text in self.said, self.said
                    return

    def type(self, text: str) -> None:
        self.said = ""
        os.write(self.master, text.encode())

    def end(self) -> int:
        code = self.process.wait(60)
        os.close(self.master)
        return code


def test_the_shell_on_a_terminal(finished: Path, tmp_path: Path) -> None:
    [answers] = query(finished, COUNT).to_pylist()
    for session in range(2):
        terminal = Terminal("shell", "--results", finished, XDG_STATE_HOME=str(tmp_path))
        terminal.wait_for("sql> ")
        if session:
            terminal.type("\x1b[A\n")  # the arrow up: the last question of the first session
        else:
            terminal.type("selec 1;\n")
            terminal.wait_for("syntax error")
            terminal.wait_for("sql> ")
            terminal.type("select count(*) as answers\n")
            terminal.wait_for("...> ")
            terminal.type("\x03")  # what was typed is given up
            terminal.wait_for("sql> ")
            terminal.type(f"{COUNT}\n")
        terminal.wait_for(str(answers["answers"]))
        terminal.wait_for("sql> ")
        terminal.type("\x04")
        assert terminal.end() == 0
    assert COUNT in (tmp_path / "prunelib" / "history").read_text()


def test_the_shell_answers_what_comes_through_a_pipe(finished: Path) -> None:
    asked = ".questions\n.copying_by_shot\n.copying\nselect 41 +\n  1 as x;\nselect 6 * 7 as last"
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "shell", "--results", str(finished)], input=asked,
        capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert "better_than_random" in done.stdout and "baseline_copying_error" in done.stdout
    assert done.stdout.count("42") == 2
    assert "'copying'" in done.stderr and done.stderr.count("\n") >= 1


def test_a_long_answer_goes_through_the_pager(finished: Path) -> None:
    terminal = Terminal("query", "select range as r from range(200)", "--results", finished,
                        PAGER="tail -n 3 | sed s/^/paged:/")
    terminal.wait_for("paged:")
    terminal.wait_for("199")
    assert "paged:" in terminal.said and " 50" not in terminal.said
    assert terminal.end() == 0
    terminal = Terminal("query", "select 1 as short", "--results", finished, PAGER="false")
    terminal.wait_for("1")
    assert terminal.end() == 0


def test_a_catalog_opens_without_prunelib(finished: Path, tmp_path: Path,
                                          capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.duckdb"
    assert call("catalog", out, "--results", finished) == 0
    asked = ("import duckdb, json, sys; c = duckdb.connect(sys.argv[1], read_only=True); "
             "print(json.dumps(c.execute(sys.argv[2]).fetchall()), "
             "any(m.startswith('prunelib') for m in sys.modules))")

    def found(sql: str) -> str:
        done = subprocess.run([sys.executable, "-c", asked, str(out), sql], cwd=tmp_path,
                              capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[-1]

    accuracies = query(finished, "SELECT method, accuracy FROM leaderboard ORDER BY ALL")
    rows = [list(row.values()) for row in accuracies.to_pylist()]
    said = found("SELECT method, accuracy FROM leaderboard ORDER BY ALL")
    assert said.endswith("False")
    assert all(f'"{method}"' in said for method, _ in rows)
    with duckdb.connect(str(out), read_only=True) as catalog:
        for info in describe_tables():
            [[there]] = catalog.execute(f'SELECT count(*) FROM "{info.name}"').fetchall()
            [expected] = query(finished, f'SELECT count(*) AS n FROM "{info.name}"').to_pylist()
            assert there == expected["n"], info.name
        [[comment]] = catalog.execute("SELECT comment FROM duckdb_columns() WHERE table_name = "
                                      "'leaderboard' AND column_name = 'accuracy'").fetchall()
        assert comment == "share of right answers, mean over tasks"
    assert call("catalog", out, "--results", finished) == 2
    assert "exists" in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.duckdb"]
