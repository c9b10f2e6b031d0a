"""Steering methods of the user's own, from the folder in which the command is called."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import call
from own_module import NAME, folder, write_module

import prunelib
from cluster.submission import taken_along
from prunelib.errors import UserError
from prunelib.models import ModelInfo
from prunelib.pipeline.plan import estimate
from prunelib.recipe.load import load_recipe

__all__ = ["folder"]

RECIPE = """
name: own
models: [{model}]
engine: transformers
search: {{layers: [0, 1], rates: [0.1, 0.5], examples: 6, shots: 2, nothing: excluded}}
steering: {{prompts: 6, shots: 2, methods: [{methods}]}}
evaluate: {{tasks: [to_upper], shots: [1], examples: 4}}
"""
#: What CAA and ITI do, once more; and other things.
SOURCE = """
import itertools
import numpy as np
from prunelib.interventions.caa import caa
from prunelib.interventions.iti import iti
from prunelib.interventions.steering import Edit, Steering, packed

def add(contrast, size, strength):
    return caa(contrast, size, strength)

def probed(contrast, size, strength):
    return iti(contrast, size, strength)
probed.needs_probes = True

calls = itertools.count()
def restless(contrast, size, strength):
    return Steering.of([Edit(size, "stream", (0,), packed([next(calls)]))])

def greedy(contrast, size, strength):
    contrast.means["stream"] *= 2
    return caa(contrast, size, strength)

def vector(contrast, size, strength):
    return contrast.means["stream"][0]

def nan(contrast, size, strength):
    return Steering.of([Edit(size, "stream", (0,), packed([np.nan]))])

def wide(contrast, size, strength):
    return Steering.of([Edit(size, "stream", (0, 10**6), factor=2.0)])

def unordered(contrast, size, strength):
    return Steering.of([Edit(size, "stream", (1, 0), factor=2.0)])

def numbers(contrast, size, strength):
    return Steering.of([Edit(np.int64(size), "stream", (0,), factor=2.0)])

def fails(contrast, size, strength):
    raise ValueError("no way")
"""
ADD = f"{{method: '{NAME}:add', strongest: 2.0}}"
PROBED = f"{{method: '{NAME}:probed', sizes: [1, 2], strongest: 30.0, name: mine}}"


def write(folder: Path, info: ModelInfo, methods: str, source: str = SOURCE) -> Path:
    write_module(folder, source)
    (folder / "r.yaml").write_text(RECIPE.format(model=info.path, methods=methods))
    return folder / "r.yaml"


def test_they_steer_as_the_methods_that_they_call(folder: Path, info: ModelInfo) -> None:
    made = write(folder, info, f"{ADD}, caa, {PROBED}, {{method: iti, sizes: [1, 2]}}")
    assert call("validate", made) == 0
    assert call("run", made, "--results", folder / "r", "--inline") == 0
    con = prunelib.open_results(folder / "r")
    rows = con.execute("select method, role, layer, strength, intervention from interventions "
                       "where role <> 'baseline' order by all").fetchall()
    for own, built_in in ((f"{NAME}:add", "caa"), ("mine", "iti")):
        first, second = ([row[1:] for row in rows if row[0] == name] for name in (own, built_in))
        assert first == second and len(first) == 4 + 1, own
    lines = con.execute("select method, accuracy, candidates from methods "
                        "where method <> 'none'").fetchall()
    assert {line[0] for line in lines} == {f"{NAME}:add", "caa", "mine", "iti"}


def test_an_edited_one_is_searched_again_if_it_steers_otherwise(folder: Path, info: ModelInfo
                                                                ) -> None:
    made = write(folder, info, ADD)
    assert call("run", made, "--results", folder / "r", "--inline") == 0

    def left() -> dict[str, int]:
        return {line.stage: line.units.most - line.done
                for line in estimate(load_recipe(made), folder / "r")}

    assert not any(left().values())
    write_module(folder, SOURCE + "\n# another comment")
    assert not any(left().values())
    write_module(folder, SOURCE.replace("caa(contrast, size, strength)",
                                        "caa(contrast, size, -strength)"))
    assert left()["attribute"] == 0 < left()["search"]


def test_from_python_too(folder: Path, info: ModelInfo) -> None:
    write_module(folder, SOURCE)
    model = prunelib.load(info.path)
    own, built_in = (model.steered(name, "to_upper", size=1, strength=3.0, shots=2, prompts=4)
                     for name in (f"{NAME}:add", "caa"))
    assert own.intervention == built_in.intervention and not own.untouched
    probed = model.steered(f"{NAME}:probed", "to_upper", size=2, strength=3.0, shots=2, prompts=6)
    assert {edit.place for edit in probed.intervention.edits} == {"head"}
    with pytest.raises(UserError, match=":add' fails for size 7 and strength 1: ValueError"):
        model.steered(f"{NAME}:add", "to_upper", size=7, strength=1.0, shots=2, prompts=4)


def test_submit_takes_its_module_along(folder: Path, info: ModelInfo) -> None:
    recipe = load_recipe(write(folder, info, ADD))
    assert taken_along(recipe) == {f"{NAME}.py": folder / f"{NAME}.py"}


@pytest.mark.parametrize(("method", "why"), [
    (f"'{NAME}:vector'", "has to return a Steering (prunelib.interventions.steering), not ndarray"),
    (f"'{NAME}:nan'", "has to return finite shifts and factors"),
    (f"'{NAME}:wide'", "this steering is not for"),
    (f"'{NAME}:unordered'", "has to return ascending indices"),
    (f"'{NAME}:numbers'", "fails for size 0 and strength 2: TypeError: Object of type int64"),
    (f"'{NAME}:fails'", "fails for size 0 and strength 2: ValueError: no way"),
    (f"'{NAME}:restless'", "has to return the same steering when it is called again"),
    (f"'{NAME}:greedy'", "has to return the same steering when it is called again"),
    (f"'{NAME}:nope'", f"steering method '{NAME}:nope' cannot be imported: module"),
    ("'math:sqrt'", "steering method 'math:sqrt' is no Python function"),
    ("'mine:'", "is not of the form package.module:function"),
])  # fmt: skip
def test_what_is_no_steering_is_one_line(folder: Path, info: ModelInfo, method: str, why: str,
                                         capfd: pytest.CaptureFixture[str]) -> None:
    made = write(folder, info, f"{{method: {method}, strongest: 2}}")
    assert call("validate", made) == 2
    out, err = capfd.readouterr()
    assert not out and len(err.splitlines()) == 1
    assert why in err


def test_the_largest_strength_has_to_be_said(folder: Path, info: ModelInfo,
                                             capfd: pytest.CaptureFixture[str]) -> None:
    assert call("validate", write(folder, info, f"'{NAME}:add'")) == 2
    assert "needs strongest, the largest strength that is tried" in capfd.readouterr().err
