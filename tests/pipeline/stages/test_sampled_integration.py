"""Attribution as precise as its prompts allow, on tiny models, against scores by other means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline.small import LAYERS, ask, done_and_resumed, recipe

from prunelib.attribution.integrated_gradients import block_gradients, layer_path
from prunelib.attribution.objectives.base import make_objective
from prunelib.attribution.shifted_nodes import nodes, shift
from prunelib.errors import UserError
from prunelib.models import ModelInfo, load
from prunelib.pipeline.stages.registry import counts as expected
from prunelib.recipe.attribution import AttributionSpec, ObjectiveSpec
from prunelib.tasks import draw, get_task
from prunelib.tasks.tokenization import Encoded, encode


def scored(info: ModelInfo, folder: Path, **attribution: Any) -> dict[str, int]:
    made = recipe(info, attribution={"prompts": 6, "shots": 2, "block": 3} | attribution,
                  search={"rates": [0.2], "examples": 4, "shots": 2},
                  controls={"random": 0, "random_searches": 0},
                  evaluate={"tasks": ["to_upper"], "shots": [1], "examples": 2})
    counts = done_and_resumed(made, folder)
    known = expected(made, LAYERS, 0)["attribute"]
    assert known.least <= counts["attribute"] <= known.most
    return counts


def scores(folder: Path, layer: int) -> np.ndarray:
    found = ask(folder, f'select score from attributions where layer = {layer} order by "index"')
    return np.array([score for (score,) in found])


def prompts_of(info: ModelInfo, count: int) -> list[Encoded]:
    examples = draw(get_task("vowel_counting"), split="attribute", shots=2, seed=0, count=count,
                    prompt_format="arrow", demonstrations=())
    tokenizer = load(info).tokenizer
    return [encode(example, tokenizer) for example in examples]


def test_scores_are_means_over_prompts_at_their_own_nodes(info: ModelInfo, tmp_path: Path) -> None:
    counts = scored(info, tmp_path / "r", max_nodes=4)
    assert counts["attribute"] == 2 * LAYERS  # blocks
    loaded, objective = load(info), make_objective(ObjectiveSpec())
    prompts = prompts_of(info, 6)
    for layer in range(LAYERS):
        by_hand = [
            np.mean([block_gradients(loaded, layer_path(loaded, layer), [p], objective,
                                     np.array([alpha]))[0].sums[0]
                     for alpha in nodes(0, [shift(p.prompt)])[:, 0]], axis=0)
            for p in prompts]
        np.testing.assert_allclose(scores(tmp_path / "r", layer), np.mean(by_hand, axis=0),
                                   rtol=1e-4, atol=1e-7)
        (found,) = ask(tmp_path / "r", "select prompts, nodes, overlap, "
                       "count(standard_error), count(first_half_rank), count(*) "
                       f"from attributions where layer = {layer} group by all")
        assert found[:2] == (6, 4) and 0 <= found[2] <= 1 and found[3] == found[4] == found[5]


def test_many_nodes_give_the_scores_of_the_exact_integral(info: ModelInfo, tmp_path: Path) -> None:
    """Gaps close, and a quadrature of another kind agrees: with one prompt nothing is sampled."""
    scored(info, tmp_path / "fine", prompts=1, max_nodes=128)
    scored(info, tmp_path / "exact", prompts=1, tolerance=1e-6, max_nodes=257)
    for layer in range(LAYERS):
        fine, exact = (scores(tmp_path / name, layer) for name in ("fine", "exact"))
        assert np.linalg.norm(fine - exact) < 0.01 * np.linalg.norm(exact)
    for gap, delta in ask(tmp_path / "fine", "select gap, delta from completeness_gaps"):
        assert abs(gap) < 0.01 * abs(delta)
    assert ask(tmp_path / "fine", "select distinct nodes from attributions") == [(128,)]


def test_nodes_are_added_only_where_they_limit_the_scores(info: ModelInfo, tmp_path: Path) -> None:
    scored(info, tmp_path / "r", prompts=12, block=6)
    for nodes_used, quadrature, sampling in ask(
            tmp_path / "r", "select nodes, any_value(error_estimate), "
            "sqrt(sum(standard_error ** 2)) / sqrt(sum(score ** 2)) from attributions "
            "group by layer, nodes"):
        assert nodes_used == 128 or quadrature <= sampling


def test_prompts_are_added_until_halves_of_them_agree(info: ModelInfo, tmp_path: Path) -> None:
    """Never, if all of it is to be equal; at once, if nothing is asked."""
    all_of_them = scored(info, tmp_path / "never", prompts=3, max_prompts=14, overlap=1.0,
                         max_nodes=4)
    at_once = scored(info, tmp_path / "once", prompts=3, max_prompts=14, overlap=0.0, max_nodes=4)
    assert at_once["attribute"] == LAYERS and all_of_them["attribute"] == 5 * LAYERS
    assert ask(tmp_path / "never", "select distinct prompts from attributions") == [(14,)]
    assert ask(tmp_path / "once", "select distinct prompts from attributions") == [(3,)]
    some = scored(info, tmp_path / "some", prompts=3, max_prompts=200, overlap=0.5, max_nodes=4)
    assert some["attribute"] >= LAYERS
    for prompts, overlap in ask(tmp_path / "some", "select distinct prompts, overlap "
                                "from attributions"):
        assert overlap >= 0.5 or prompts >= 190


def test_a_given_number_of_prompts_is_meant() -> None:
    assert AttributionSpec().most_prompts == 400
    assert AttributionSpec(prompts=10).most_prompts == 10
    again = AttributionSpec.model_validate(AttributionSpec().model_dump())
    assert again == AttributionSpec() and again.most_prompts == 400
    assert AttributionSpec(choose="wrong").most_prompts == 100
    assert AttributionSpec(tolerance=0.02).most_prompts == 100


@pytest.mark.parametrize(("changes", "say"), [
    ({"prompts": 20, "max_prompts": 10}, "max_prompts: 10 is below prompts: 20"),
    ({"tolerance": 0.02, "overlap": 0.5}, "overlap is for integrated gradients without"),
    ({"method": "wanda", "aggregate_prompts": "trimmed"}, "aggregate_prompts is for"),
    ({"choose": "wrong", "max_prompts": 200}, "max_prompts is for integrated gradients"),
    ({"tolerance": 0.02, "max_nodes": 4}, "a tolerance takes 9 nodes or more"),
])
def test_keys_that_mean_nothing_are_refused(changes: dict[str, Any], say: str) -> None:
    with pytest.raises(UserError, match=say):
        AttributionSpec.model_validate(changes)
