"""The commands that the documents show: all of them parse, and those without a marker run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from command_line import call
from typer.main import get_command

import prunelib
from jobs.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Pages whose commands `make test` runs; those of the others are left to `make test-all`.
QUICK = {"README.md", "docs/how-to/task.md"}
#: A marker on the line before a fence, if there is one, and the block.
_BLOCK = re.compile(r"(?:^<!-- (?P<marker>[^\n]+?) -->\n)?^```sh\n(?P<text>.*?)^```$", re.M | re.S)
#: A file within a script: its lines are no commands.
_HEREDOC = re.compile(r"<<'(\w+)'\n.*?^\1$", re.M | re.S)
_COMMAND = re.compile(r"\bprunelib ((?:\"[^\"]*\"|'[^']*'|[^\n|<>)\"'])+)")


@dataclass(frozen=True)
class Block:
    """Commands of a page.

    ``marker`` is empty, ``long`` (hours, or many minutes), or what is needed: ``needs: gpu``,
    ``needs: network``, ``needs: demo`` (its results).
    """

    marker: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The words of every ``prunelib`` command."""
        script = _HEREDOC.sub("", self.text).replace("\\\n", " ")
        return [shlex.split(words, comments=True) for words in _COMMAND.findall(script)]


def blocks(page: Path) -> list[Block]:
    """The ``sh`` blocks of a page, in order."""
    return [Block(m["marker"] or "", m["text"]) for m in _BLOCK.finditer(page.read_text())]


def runnable(page: Path) -> list[Block]:
    """Blocks that this machine can run in minutes."""
    markers = {"", "needs: gpu"} if torch.cuda.is_available() else {""}
    return [block for block in blocks(page) if block.marker in markers]


def name_of(page: Path) -> str:
    """The page in the name of a test."""
    return str(page.relative_to(ROOT))


def test_blocks_are_read_with_their_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("""
```sh
cat > x <<'EOF'
prunelib nonsense
EOF
prunelib query "select 1
  from t" --results r | tail -1
x=$(prunelib plan a.yaml)  # a comment
```
<!-- long -->
```sh
prunelib run \\
  a.yaml --results r
```
""")
    first, second = blocks(page)
    assert (first.marker, second.marker) == ("", "long")
    assert first.commands == [["query", "select 1\n  from t", "--results", "r"],
                              ["plan", "a.yaml"]]
    assert second.commands == [["run", "a.yaml", "--results", "r"]]


def test_markers_are_known() -> None:
    used = {block.marker for page in PAGES for block in blocks(page)}
    assert used <= {"", "long", "needs: demo", "needs: gpu", "needs: network"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_parses(page: Path) -> None:
    for block in blocks(page):
        for words in block.commands:
            command, left = get_command(app), list(words)
            while hasattr(command, "commands"):
                assert left and left[0] in command.commands, words
                command = command.commands[left.pop(0)]
            command.make_context("prunelib", left)


def test_recipes_within_a_page_have_known_keys() -> None:
    found = [text for page in PAGES
             for text in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.M | re.S)]
    assert found
    for text in found:
        assert prunelib.Recipe.model_validate(yaml.safe_load(text)).models, text


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if any(
    block.marker == "long" for block in blocks(page))], ids=name_of)
def test_what_runs_long_would_start(page: Path, monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    text = "".join(block.text for block in blocks(page) if block.marker == "long")
    recipes = set(re.findall(r"\S+\.yaml", text))
    modules = set(re.findall(r"python -m (benchmarks\.\w+)", text))
    assert recipes | modules
    for recipe in recipes:  # the page says how to get a pretrained model that is not here
        known = call("validate", recipe) == 0
        assert known or "run `prunelib reference fetch" in capsys.readouterr().err, recipe
    for module in modules:
        assert find_spec(module), module


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", [
    page if name_of(page) in QUICK else pytest.param(page, marks=pytest.mark.long)
    for page in PAGES if runnable(page)], ids=name_of)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    script = "set -o pipefail\n" + "\n".join(block.text for block in runnable(page))
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
