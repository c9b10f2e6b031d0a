"""The command line as a whole: its help and its registry."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from jobs.commands import registry
from jobs.reference_pages.commands import every_command, examples


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    code = ("import sys; import prunelib, jobs.cli; "
            "heavy = {'torch', 'ray', 'vllm', 'transformers', 'pandas'} & set(sys.modules); "
            "sys.exit(str(heavy) if heavy else 0)")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_command_has_help_with_an_example() -> None:
    for name, command in every_command():
        assert examples(command), name
        for example in examples(command):
            words = shlex.split(re.sub(r" < \S+$", "", example))
            assert words[: 1 + len(name.split())] == ["prunelib", *name.split()]
            command.make_context(name, words[1 + len(name.split()):])  # exits if it does not parse


def test_every_file_of_a_command_is_in_the_registry() -> None:
    folder = Path(registry.__file__).parent
    files = {path.stem for path in folder.glob("*.py")}
    assert files == {*registry.COMMANDS, "__init__", "options", "registry"}


def test_a_command_is_one_file_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def hello() -> None:
        """Say hello."""

    module = types.ModuleType("jobs.commands.hello")
    monkeypatch.setattr(module, "hello", hello, raising=False)
    monkeypatch.setitem(sys.modules, "jobs.commands.hello", module)
    monkeypatch.setitem(registry.COMMANDS, "hello", "Results")
    app = typer.Typer()
    registry.add_commands(app)
    said = CliRunner().invoke(app, ["--help"]).output
    results = said.split("─ Results ─")[1].split("╰")[0]
    assert re.search(r"hello +Say hello\.", results)
