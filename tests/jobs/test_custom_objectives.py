"""Objectives of the user's own, from the folder in which the command is called."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import call

import prunelib
from prunelib.models import ModelInfo
from prunelib.pipeline.plan import estimate
from prunelib.pipeline.units.executor import InlineExecutor
from prunelib.pipeline.units.unit import Unit
from prunelib.pipeline.units.worker import Worker
from prunelib.recipe.load import load_recipe
from prunelib.recipe.recipe import Recipe
from prunelib.results.storage.store import Store

ROOT = Path(__file__).parent.parent.parent
RECIPE = """
name: own
models: [{model}]
engine: transformers
attribution: {{objective: '{objective}', prompts: 4, shots: 2, block: 2, max_nodes: 4}}
search: {{rates: [0.2], examples: 6, shots: 2}}
evaluate: {{tasks: [to_upper], shots: [1], examples: 4}}
"""
#: The example of the documentation, a file's text.
(EXAMPLE,) = re.findall(r"```python\n(# mine\.py.*?)```",
                        "\n".join(page.read_text() for page in (ROOT / "docs").rglob("*.md")),
                        re.DOTALL)


def called(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``prunelib ARGUMENTS`` as its console script: without the current folder on the path."""
    command = [sys.executable, "-P", "-c", "from jobs.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, check=False)


def write(folder: Path, info: ModelInfo, source: str = EXAMPLE, objective: str = "mine:surprise"
          ) -> None:
    (folder / "mine.py").write_text(source)
    (folder / "r.yaml").write_text(RECIPE.format(model=info.path, objective=objective))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder of this process, which no import remembers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    yield tmp_path
    sys.modules.pop("mine", None)


def test_the_console_script_finds_the_documented_one_and_hides_nothing(
    info: ModelInfo, tmp_path: Path
) -> None:
    write(tmp_path, info)
    for name in ("torch", "prunelib", "json", "yaml"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('of the current folder')")
    done = called(tmp_path, "validate", "r.yaml")
    assert done.returncode == 0 and "fine" in done.stdout, done.stderr


def test_the_documented_one_is_run_and_an_edit_beside_it_is_noticed(
    info: ModelInfo, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(folder, info)
    assert call("run", "r.yaml", "--results", "r", "--inline") == 0
    found = Store.open(folder / "r", create=False).read("attributions")
    assert set(found["objective"].to_pylist()) == {"mine:surprise"}
    recipe = load_recipe("r.yaml")
    assert _scores_done(recipe) > 0
    (folder / "mine.py").write_text(f"{EXAMPLE}\n\ndef helper():\n    return 1\n")
    assert _scores_done(recipe) > 0  # what is imported is as it was
    del sys.modules["mine"]
    assert _scores_done(recipe) == 0


def _scores_done(recipe: Recipe) -> int:
    return next(line.done for line in estimate(recipe, "r") if line.stage == "attribute")


class _Elsewhere(InlineExecutor):
    """Performs units where the module is another one."""

    def submit(self, unit: Unit) -> None:
        Path("mine.py").write_text(f"{EXAMPLE}\n# edited\n")
        sys.modules.pop("mine", None)
        super().submit(unit)


def test_a_worker_with_another_version_of_it_refuses_it(info: ModelInfo, folder: Path) -> None:
    write(folder, info)
    executor = _Elsewhere(lambda: Worker(Store.open(folder / "r")))
    report = prunelib.run(load_recipe("r.yaml"), folder / "r", executor)
    assert report.failed
    assert all(f"is another one here ({folder}/mine.py)" in str(attempt.error_text)
               for attempt in report.failed)


@pytest.mark.long
@pytest.mark.cluster
@pytest.mark.slow
def test_workers_of_a_local_ray_find_it_too(info: ModelInfo, tmp_path: Path) -> None:
    write(tmp_path, info)
    done = called(tmp_path, "run", "r.yaml", "--results", "r")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("objective", "source", "message"), [
    ("mine:f", "def f(:\n", "cannot be imported: invalid syntax (mine.py, line 1)"),
    ("mine:f", "raise RuntimeError('no\\nway')", "cannot be imported: RuntimeError: no way"),
    ("mine:f", "raise SystemExit(0)", "cannot be imported: SystemExit"),
    ("mine:f", "", "module 'mine' has no attribute 'f'"),
    ("mine:f", "import functools, math\nf = functools.wraps(math.sqrt)(lambda x: x)",
     "takes 1 positional argument but 2"),
    ("math:sqrt", "", "'math:sqrt' is no Python function, but"),
    ("mine:f", "import functools\nf = functools.partial(print)", "but of type partial"),
    ("mine:f", "exec('def f(logits, prompts): return 0')", "has no source file"),
    (":f", "", "objective ':f' is not of the form package.module:function"),
    (".mine:f", "", "objective '.mine:f' is not of the form package.module:function"),
    ("mine:", "", "is not of the form"),
    ("mine:f:g", "", "is not of the form"),
    ("mine:f", "def f(logits): return logits.sum(-1)", "takes 1 positional argument but 2"),
    ("mine:f", "def f(logits, prompts): return logits.sum()", "not one of shape []"),
    ("mine:f", "def f(logits, prompts): return logits", "not one of shape [2, "),
    ("mine:f", "def f(logits, prompts): return 1.0", "with a gradient, not float"),
    ("mine:f", "def f(logits, prompts): return logits.argmax(-1).float()",
     "does not depend on the logits in a way that can be differentiated"),
    ("mine:f", "import torch\ndef f(logits, prompts): return torch.ones(2, requires_grad=True)",
     "does not depend on the logits"),
])  # fmt: skip
def test_what_is_wrong_with_one_is_said_in_one_line(
    objective: str, source: str, message: str, info: ModelInfo, folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    write(folder, info, source, objective)
    assert call("validate", "r.yaml") == 2
    said = capfd.readouterr().err
    assert message in said and said.count("\n") == 1


def test_one_that_reads_no_labels_is_for_unlabelled_data(
    info: ModelInfo, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = ROOT / "tests" / "data" / "balanced_copa"
    for attribute, code in (("", 2), ("f.needs_labels = False", 0)):
        write(folder, info, "def f(logits, prompts): return logits.max(-1).values\n" + attribute,
              "mine:f")
        recipe = (folder / "r.yaml").read_text()
        for old, new in (("prompts: 4, shots: 2", "prompts: 1, shots: 0, proxy: copa"),
                         ("search: {", "search: {proxy: vowel_counting, ")):
            recipe = recipe.replace(old, new)
        (folder / "r.yaml").write_text(
            f"{recipe}\ntasks: [{{name: copa, path: {data}, template: '{{premise}} {{answer}}', "
            "unlabelled: [attribute], splits: {attribute: train, search: train, report: test}}]")
        assert call("validate", "r.yaml") == code
        sys.modules.pop("mine", None)
        said = capfd.readouterr().err
        assert ("reads none, give it the attribute needs_labels = False" in said) == (code == 2)
