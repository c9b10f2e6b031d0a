"""Orders in which neurons are switched off, and recall of planted ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pipeline.small import LAYERS, ask, done_and_resumed, recipe

from prunelib.models import ModelInfo
from prunelib.recipe.checks import check_recipe
from prunelib.search.selection import random_order

#: Neurons of a layer, of which the highest, lowest and largest scores have unlike numbers.
PLANTED = [10, 13, 18, 23, 24, 28, 36, 40, 45, 46]


@pytest.fixture(scope="module")
def planted(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rankings of every direction, of a model of which ten hidden units are said to copy."""
    model = Path(shutil.copytree(info.path, tmp_path_factory.mktemp("planted") / "model"))
    (model / "planted.json").write_text(json.dumps({"layer": 1, "neurons": PLANTED}))
    results = model.parent / "r"
    directions = {"highest": {}, "lowest": {"rank": "bottom"}, "largest": {"rank": "absolute"},
                  "down": {"projection": "down"}}
    common = {"method": "gradient_activation", "prompts": 4, "shots": 2}
    made = recipe(
        info, models=[str(model)],
        attribution=[*({"name": name} | common | changes for name, changes in directions.items()),
                     {"name": "shuffled", "method": "random", "seeds": [3]}],
        search={"rates": [0.2], "examples": 4, "shots": 2},
        evaluate={"tasks": ["to_upper"], "shots": [1], "examples": 4},
    )
    check_recipe(made)
    done_and_resumed(made, results)
    return results


def scores_of(results: Path, method: str, layer: int) -> NDArray[np.float64]:
    found = ask(results, f"select score from attributions where method = '{method}' "
                         f"and layer = {layer} order by \"index\"")
    return np.array([score for (score,) in found])


def test_ranks_are_the_order_in_which_neurons_are_switched_off(planted: Path) -> None:
    for method, ascending in {"highest": -1.0, "lowest": 1.0, "shuffled": -1.0, "down": -1.0,
                              "largest": None}.items():
        scores = scores_of(planted, method, 1)
        ranks = [rank for (rank,) in ask(
            planted, f"select \"rank\" from attributions where method = '{method}' and layer = 1 "
                     "order by \"index\"")]
        key = -np.abs(scores) if ascending is None else ascending * scores
        assert (np.argsort(ranks) == np.argsort(key, kind="stable")).all(), method
        for layer, count, off in ask(
                planted, "select layer, \"count\", content->'$.indices' from interventions "
                         f"where role = 'grid' and method = '{method}'"):
            first = ask(planted, f"select \"index\" from attributions where method = '{method}' "
                                 f"and layer = {layer} and \"rank\" <= {count}")
            assert sorted(json.loads(off)) == sorted(index for (index,) in first)


def test_recall_is_of_the_neurons_that_would_go_off_first_and_of_their_site(planted: Path) -> None:
    expected = {}
    for method, key in {"highest": lambda s: -s, "lowest": lambda s: s, "shuffled": lambda s: -s,
                        "largest": lambda s: -np.abs(s)}.items():
        first = np.argsort(key(scores_of(planted, method, 1)), kind="stable")[:10]
        expected[method] = len(set(PLANTED) & set(first.tolist())) / 10
    assert len({expected[name] for name in ("highest", "lowest", "largest")}) == 3
    assert dict(ask(planted, "select method, recall from recall")) == expected
    assert dict(ask(planted, "select method, recall from scorers")) == expected | {"down": None}
    # Two directions of the same scores have other tops.
    (alike,) = ask(planted, "select spearman, shared from overlap where layer = 1 and share = 0.1 "
                            "and method = 'highest' and other_method = 'lowest'")
    assert alike == (pytest.approx(1.0), 0)


def test_a_random_order_is_seeded_costs_nothing_and_is_no_control(planted: Path) -> None:
    orders = [tuple(np.argsort(-scores_of(planted, "shuffled", layer))) for layer in range(LAYERS)]
    assert len(set(orders)) == LAYERS
    for layer, order in enumerate(orders):
        assert order == random_order(48, layer, 3, "random attribution")
        assert order != random_order(48, layer, 3)
    assert ask(planted, "select distinct objective, seed, nodes from attributions "
                        "where method = 'shuffled'") == [(None, 3, None)]
    assert ask(planted, "select units, seconds from scorers where method = 'shuffled'") == [
        (None, None)]
