"""Every kind of attribution in one recipe, from scores to the leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pipeline.small import LAYERS, ask, done_and_resumed, drawn, recipe

from prunelib.models import ModelInfo
from prunelib.pipeline.stages.registry import counts as expected
from prunelib.recipe.checks import check_recipe
from prunelib.recipe.recipe import Recipe


def each(**common: Any) -> list[dict[str, Any]]:
    """One attribution of every kind, each with a name; one level of nodes."""
    kinds: dict[str, dict[str, Any]] = {
        "layer": {}, "trimmed": {"aggregate_prompts": "trimmed"},
        "tolerant": {"tolerance": 0.02, "max_nodes": 9},
        "released": {"variant": "released"}, "up": {"projection": "up"},
        "down": {"projection": "down"}, "bottom": {"rank": "bottom"},
        "absolute": {"rank": "absolute"}, "wrong": {"choose": "wrong", "seeds": [1]},
        "free": {"objective": "max_logit"},
        "all-tokens": {"objective": {"name": "copy_shift", "tokens": "all",
                                     "space": "log_probability"}},
        "shuffled": {"method": "random"},
        **{path: {"path": path} for path in ("joint", "last_position", "single")},
        **{method: {"method": method} for method in (
            "gradient_activation", "activation", "weight", "wanda")},
    }  # fmt: skip
    plain = {"prompts": 4, "shots": 2, "block": 2, "max_nodes": 4}
    return [{"name": name} | plain | kind | common for name, kind in kinds.items()]


@pytest.fixture(scope="module")
def every(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """Every attribution in one recipe, finished."""
    results = tmp_path_factory.mktemp("every") / "r"
    made = recipe(info, attribution=each(), search={"rates": [0.2], "examples": 4, "shots": 2},
                  evaluate={"tasks": ["to_upper"], "shots": [1], "examples": 4,
                            "capability": {"text": "prompts", "examples": 5}})
    check_recipe(made)
    counts = done_and_resumed(made, results)
    # Trimmed, bottom and absolute have the units of layer. What is open is whether there are enough
    # prompts that are answered wrongly, which have 2 blocks in each layer.
    assert counts["attribute"] == expected(made, LAYERS, 0)["attribute"].least + 2 * LAYERS
    return made, results


def test_every_attribution_is_searched_evaluated_and_priced(every: tuple[Recipe, Path]) -> None:
    made, results = every
    names = {spec.label for spec in made.attribution}
    scored = ask(results, 'select method, layer, count(*) from attributions group by all')
    assert {(m, layer) for m, layer, _ in scored} == {(m, i) for m in names for i in range(LAYERS)}
    assert {n for m, _, n in scored if m == "down"} == {64}  # dimensions of the stream
    assert {n for m, _, n in scored if m != "down"} == {48}
    lines = ask(results, "select method, accuracy, difference, units, seconds, recall from scorers")
    assert {line[0] for line in lines} == names
    assert all(line[5] is None for line in lines)
    assert {line[0] for line in lines if line[4] is None} == {"shuffled"}
    units = {line[0]: line[3] for line in lines}
    assert (units["layer"], units["joint"], units["single"], units["wanda"]) == (4, 2, 2, 1)
    assert units["wrong"] == 5  # one to choose the prompts
    # Each ranking goes another way through the same scores.
    chosen = dict(ask(results, "select method, intervention from interventions "
                              "where role = 'chosen'"))
    assert chosen["layer"] != chosen["bottom"]


def test_scores_that_are_defined_alike_are_alike(every: tuple[Recipe, Path]) -> None:
    _, results = every
    found: dict[str, dict[tuple[int, int], float]] = {}
    for method, layer, index, score in ask(
            results, 'select method, layer, "index", score from attributions'):
        found.setdefault(method, {})[layer, index] = score
    assert found["layer"] == found["bottom"] == found["absolute"]
    for other in ("up", "released", "joint", "last_position", "single", "free", "wrong",
                  "all-tokens", "gradient_activation", "activation", "weight", "wanda"):
        assert found[other] != found["layer"], other


def test_every_choice_is_compared_with_random_neurons_of_its_layer_site_and_size(
    every: tuple[Recipe, Path]
) -> None:
    made, results = every
    chosen, controls = (
        ask(results, 'select distinct method, site, layer, "count", intervention '
                     f"from interventions where role = '{role}' and method <> 'random_search'")
        for role in ("chosen", "control"))
    assert len({cell[1:4] for cell in chosen}) > 1  # else there is nothing to tell apart
    assert sorted(cell[1:4] for cell in controls) == sorted({cell[1:4] for cell in chosen})
    of_cell = {cell[1:4]: cell[4] for cell in controls}
    accuracy = dict(ask(results, "select distinct intervention, accuracy from evaluations "
                                 "where purpose = 'report'"))
    told = dict(ask(results, "select method, difference_to_random from scorers"))
    assert told == {cell[0]: pytest.approx(accuracy[cell[4]] - accuracy[of_cell[cell[1:4]]])
                    for cell in chosen}
    # The leaderboard has random neurons once for all who chose their cell.
    named = ask(results, "select matched_to from leaderboard where method = 'random'")
    assert len(named) == len(controls)
    assert sorted(", ".join(m for (m,) in named).split(", ")) == sorted(
        spec.label for spec in made.attribution)
    maps = {axes.get_title().partition("\n")[0] for axes in drawn(results)["search"].figure.axes}
    assert len(maps) >= min(len(made.attribution), 12)


def test_wrong_prompts_are_those_that_the_model_answers_wrongly(every: tuple[Recipe, Path]) -> None:
    _, results = every
    pool = ask(results, "select correct from predictions where purpose = 'pool'")
    assert len(pool) == 16 and sum(not correct for (correct,) in pool) >= 4


def test_capability_is_measured_for_every_ablation(every: tuple[Recipe, Path]) -> None:
    _, results = every
    lines = ask(results, "select method, role, source, texts, questions, perplexity, "
                         "baseline_perplexity, perplexity_ratio_low, accuracy from capability")
    reported = ask(results, "select count(*) from leaderboard")
    sets = ask(results, "select count(*) from leaderboard where matched_to is not null")
    assert len(lines) == reported[0][0] == len(each()) + 2 + sets[0][0]
    assert {line[2:5] for line in lines} == {("prompts", 5, 5)}
    assert {(line[5] == line[6]) for line in lines if line[1] == "baseline"} == {True}
    assert any(line[5] != line[6] for line in lines)
    # One answer of one character each: the probability of right answers, not of their prompts.
    assert ask(results, "select distinct tokens from likelihoods") == [(1,)]
    assert ask(results, "select distinct task from evaluations where purpose = 'report'") == [
        ("to_upper",)]
