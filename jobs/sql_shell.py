"""A prompt that answers SQL, with the line editing of the standard library."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb

from jobs.answer import print_table
from jobs.console import console, print_error
from prunelib.errors import UserError, unknown_name
from prunelib.results.query import TableInfo, describe_tables, run_query
from prunelib.results.questions import QUESTIONS

_PROMPTS = "sql> ", "...> "
_WORDS = ("SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "LIMIT", "JOIN", "DESCRIBE",
          "SUMMARIZE")
_HISTORY = 1000


class Shell:
    """Reads questions and prints answers until there are no more."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._tables: list[TableInfo] = describe_tables()

    def run(self) -> None:
        """Ends where its input does."""
        with _line_editing(self._names()):
            question = ""
            while True:
                try:
                    line = input(_PROMPTS[bool(question)] if sys.stdin.isatty() else "")
                except KeyboardInterrupt:  # what was typed is given up
                    question = ""
                    console.print()
                    continue
                except EOFError:
                    if sys.stdin.isatty():
                        console.print()
                    elif question.strip():
                        self.answer(question)
                    return
                question = f"{question}\n{line}" if question else line
                if question.lstrip().startswith(".") or question.rstrip().endswith(";"):
                    self.answer(question)
                    question = ""
                elif not question.strip():
                    question = ""

    def answer(self, question: str) -> None:
        """Print the answer to a question, or in a line why there is none."""
        try:
            if question.lstrip().startswith("."):
                self._command(question.strip().removesuffix(";")[1:])
            else:
                print_table(run_query(self._connection, question), console)
        except UserError as error:
            print_error(error)
        except KeyboardInterrupt:
            console.print("stopped")

    def _command(self, name: str) -> None:
        if name in ("tables", "questions"):
            found = ([(info.name, info.description) for info in self._tables]
                     if name == "tables" else
                     [(f".{key}", value.description) for key, value in QUESTIONS.items()])
            width = max(len(key) for key, _ in found)
            for key, description in found:
                console.print(f"{key:{width}}  {description}", markup=False, highlight=False)
        elif name in QUESTIONS:
            self.answer(QUESTIONS[name].sql)
        else:
            raise unknown_name("question", name, ["tables", "questions", *QUESTIONS])

    def _names(self) -> list[str]:
        names = {info.name for info in self._tables}
        names |= {column.name for info in self._tables for column in info.columns}
        return [*_WORDS, *sorted(names), ".tables", ".questions",
                *(f".{name}" for name in QUESTIONS)]


@contextlib.contextmanager
def _line_editing(names: list[str]) -> Iterator[None]:
    """Completion of names, and a history that later sessions have too; on a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    import readline

    def complete(text: str, state: int) -> str | None:
        found = [name for name in names if name.lower().startswith(text.lower())]
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(re.sub(r"[._]", "", readline.get_completer_delims()))
    readline.parse_and_bind("tab: complete")
    readline.set_history_length(_HISTORY)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    history = Path(state) / "prunelib" / "history"
    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a home that cannot be written has no history
            history.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(history)
