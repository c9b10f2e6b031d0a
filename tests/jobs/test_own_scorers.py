"""Scorers of the user's own, from the folder in which the command is called."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import call

import prunelib
from cluster.submission import taken_along
from prunelib.models import ModelInfo
from prunelib.pipeline.plan import estimate
from prunelib.recipe.load import load_recipe

RECIPE = """
name: own
models: [{model}]
engine: transformers
attribution: [{{method: '{method}', prompts: 4, shots: 2}}, {{method: activation, prompts: 4, shots: 2}}]
search: {{layers: [1], rates: [0.2], examples: 6, shots: 2, nothing: excluded}}
controls: {{random: 1, random_searches: 1}}
evaluate: {{tasks: [to_upper], shots: [1], examples: 4}}
"""  # noqa: E501
#: What the method ``activation`` does, once more; and other things.
SOURCE = """
import numpy as np
from prunelib.attribution.scorers.activation import activation

def score(loaded, path, prompts, objective, rows):
    return activation(loaded, path, prompts, objective, rows)

def flat(loaded, path, prompts, objective, rows):
    return np.zeros(3)

def nan(loaded, path, prompts, objective, rows):
    return score(loaded, path, prompts, objective, rows) * np.nan

def none(loaded, path, prompts, objective, rows):
    return [None]

def fails(loaded, path, prompts, objective, rows):
    raise ValueError("no way")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder of this process, which no import remembers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    (tmp_path / "scores.py").write_text(SOURCE)
    yield tmp_path
    sys.modules.pop("scores", None)


def write(folder: Path, info: ModelInfo, method: str = "scores:score") -> Path:
    (folder / "r.yaml").write_text(RECIPE.format(model=info.path, method=method))
    return folder / "r.yaml"


def test_it_scores_like_the_method_that_it_calls(folder: Path, info: ModelInfo) -> None:
    made = write(folder, info)
    assert call("validate", made) == 0
    assert call("run", made, "--results", folder / "r", "--inline") == 0
    results = prunelib.open_results(folder / "r")
    own, built_in = (results.execute(
        f"select layer, \"index\", score, rank from attributions where method = '{method}' "
        "order by all").fetchall() for method in ("scores:score", "activation"))
    assert own == built_in and len(own) == info.width
    rows = results.execute(
        "select method, intervention from interventions where role = 'chosen'").fetchall()
    assert {row[0] for row in rows} == {"scores:score", "activation"}
    assert len({row[1] for row in rows}) == 1


def test_its_scores_are_computed_again_when_its_file_is_edited(folder: Path, info: ModelInfo
                                                               ) -> None:
    made = write(folder, info)
    assert call("run", made, "--results", folder / "r", "--inline") == 0

    def left() -> int:
        (line,) = (line for line in estimate(load_recipe(made), folder / "r")
                   if line.stage == "attribute")
        return line.units.most - line.done

    assert left() == 0
    (folder / "scores.py").write_text(SOURCE + "\n# another")
    sys.modules.pop("scores")
    assert left() == 1  # and that of activation is there


def test_submit_takes_its_module_along(folder: Path, info: ModelInfo) -> None:
    recipe = load_recipe(write(folder, info))
    assert taken_along(recipe) == {"scores.py": folder / "scores.py"}


@pytest.mark.parametrize(("method", "why"), [
    ("scores:flat", "has to return an array of shape [2, 576] or [2, 2, 576], not [3]"),
    ("scores:nan", "has to return finite numbers"),
    ("scores:none", "scorer 'scores:none' has to return an array"),
    ("scores:fails", "fails for 2 prompts and layers 0 and 1 of reference/llama: ValueError: no "
                     "way"),
    ("scores:nope", "scorer 'scores:nope' cannot be imported: module 'scores' has no attribute"),
    ("math:sqrt", "scorer 'math:sqrt' is no Python function"),
    ("scores:", "is not of the form package.module:function"),
    ("activaton", "unknown method 'activaton': did you mean"),
])  # fmt: skip
def test_what_is_no_scorer_is_one_line(folder: Path, info: ModelInfo, method: str, why: str,
                                       capfd: pytest.CaptureFixture[str]) -> None:
    assert call("validate", write(folder, info, method)) == 2
    out, err = capfd.readouterr()
    assert not out and len(err.splitlines()) == 1
    assert why in err
