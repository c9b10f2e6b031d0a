"""What a recipe can name against what there is: scorers, objectives, strategies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from prunelib.attribution import objectives, quadrature, scorers, shifted_nodes
from prunelib.attribution.objectives.base import Objective, make_objective
from prunelib.attribution.scorers.base import load_scorer
from prunelib.attribution.scorers.iterated_path import ROUNDS
from prunelib.errors import UserError
from prunelib.recipe.attribution import AttributionSpec, ObjectiveSpec
from prunelib.recipe.methods import METHODS, OBJECTIVES, PATHS, STRATEGIES, KnownObjective, Method
from prunelib.search.strategies import load_strategy


def files(package: ModuleType) -> set[str]:
    """Names of the modules of a package, but for what they share."""
    return {file.stem for folder in package.__path__
            for file in Path(folder).glob("*.py")} - {"__init__", "base"}


def test_every_scorer_has_a_file_and_a_line() -> None:
    named = {name for name, method in (METHODS | PATHS).items() if method.scorer}
    assert files(scorers) == named
    for name in named:
        assert load_scorer(name).__module__ == f"{scorers.__name__}.{name}"
    with pytest.raises(KeyError):
        load_scorer("integrated_gradients")


def test_every_objective_has_a_file_and_a_line() -> None:
    assert files(objectives) == set(OBJECTIVES)
    for name in OBJECTIVES:
        assert isinstance(make_objective(ObjectiveSpec(name=name)), Objective)


def test_every_strategy_has_a_function() -> None:
    assert all(load_strategy(name).__name__ == name for name in STRATEGIES)


def test_costs_are_those_of_the_algorithms() -> None:
    nodes = quadrature.NODES[0]
    assert METHODS["iterated_path"].passes == 2 * (ROUNDS + nodes)
    by_prompt = 2 * shifted_nodes.NODES[0] + 2  # and both ends, without a gradient
    assert METHODS["integrated_gradients"].passes == PATHS["joint"].passes == by_prompt
    assert AttributionSpec(tolerance=0.02).computation.passes == 2 * nodes
    # Two of four layers, for which the model above them is run: 1 + 3/4 models.
    costs = {name: method.cost(1.75, 64) for name, method in (METHODS | PATHS).items()}
    assert costs["random"] == 0 and costs["single"] == 1.75 * 64 and costs["activation"] == 1
    assert costs["integrated_gradients"] == 1.75 * by_prompt and costs["joint"] == by_prompt


def test_a_path_may_be_another_computation() -> None:
    def computed(**keys: str) -> Method:
        return AttributionSpec.model_validate(keys).computation

    assert computed() is computed(path="last_position") is METHODS["integrated_gradients"]
    assert computed(path="single") is PATHS["single"] and computed(path="joint") is PATHS["joint"]
    assert not computed(path="single").quadrature and not computed(path="joint").by_layer
    assert not computed(method="random", name="r").runs


@pytest.mark.parametrize("keys", [
    {"method": "iterated_path", "projection": "up"},
    {"method": "iterated_path", "objective": {"tokens": "all"}},
    {"method": "activation", "path": "joint"},
    {"path": "single", "variant": "released"},
])  # fmt: skip
def test_a_key_that_a_method_does_not_take_is_refused(keys: dict[str, object]) -> None:
    with pytest.raises(UserError):
        AttributionSpec.model_validate(keys)


def test_a_recipe_is_read_without_torch() -> None:
    code = ("import sys, prunelib.recipe.load as load; load.parse_recipe('name: a\\nmodels: b'); "
            "assert not {'torch', 'transformers', 'ray', 'vllm'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True,
                   cwd=Path(__file__).parent.parent.parent)


def test_a_scorer_is_added_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("a_scorer_of_a_test")
    module.__dict__["constant"] = lambda *_: 1.0
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(METHODS, "constant", Method("constant", f"{module.__name__}:constant"))
    spec = AttributionSpec(method="constant")
    assert spec.computation.runs and spec.label == "constant"
    assert load_scorer(spec.computation.name) is module.__dict__["constant"]


def test_an_objective_is_added_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("an_objective_of_a_test")
    module.__dict__["make"] = lambda spec: Objective(lambda logits, prompts: logits[:, 0])
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(OBJECTIVES, "first", KnownObjective(f"{module.__name__}:make"))
    spec = ObjectiveSpec(name="first")
    assert spec.needs_labels and not spec.compares_answers
    assert make_objective(spec).function(np.array([[2.0, 3.0]]), []) == [2.0]
    with pytest.raises(ValueError, match="'first' has no switches"):
        ObjectiveSpec(name="first", gold_only=True)
