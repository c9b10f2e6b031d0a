"""Where no cell beats the untouched model, nothing is switched off, and everything goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pipeline.small import LAYERS, ask, done_and_resumed, drawn, recipe

import prunelib
from prunelib.interventions.ablation import BASELINE
from prunelib.models import ModelInfo
from prunelib.pipeline.stages.registry import counts as expected
from prunelib.recipe.checks import check_recipe
from prunelib.recipe.recipe import Recipe

#: What may follow a choice, all of it.
EVERYTHING = {
    "controls": {"random": 2, "random_searches": 2, "fine_tuning": {"epochs": 1}},
    "evaluate": {"tasks": ["to_upper", "list_first"], "shots": [1], "examples": 4,
                 "task_vectors": {"examples": 2, "shots": 1},
                 "capability": {"text": "prompts", "tasks": ["general_knowledge"], "examples": 2}},
}


def searched(info: ModelInfo, **search: str) -> Recipe:
    """The tiny model answers every prompt of the proxy wrongly, whatever is switched off."""
    made = recipe(info, **EVERYTHING)
    return Recipe.model_validate(made.model_dump() | {
        "search": made.search.model_dump() | {"nothing": "candidate"} | search})


@pytest.fixture(scope="module")
def nothing(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("nothing") / "r"
    made = searched(info)
    check_recipe(made)
    counts = done_and_resumed(made, results)
    least = {stage: count.least for stage, count in expected(made, LAYERS, 0).items()}
    assert counts == least | {"attribute": counts["attribute"]}
    return results


def test_the_choice_is_the_untouched_model(nothing: Path) -> None:
    records = ask(nothing, 'select method, role, seed, site, layer, rate, "count", content, proxy '
                           "from interventions where role <> 'grid' and kind = 'ablation' "
                           "and intervention = '" + BASELINE.digest + "' order by all")
    none = (None, None, None, 0, json.dumps(BASELINE.content(), separators=(",", ":")))
    assert records == [
        ("integrated_gradients", "chosen", None, *none, "vowel_counting"),
        ("none", "baseline", None, *none, None),
        ("random_search", "control", 0, *none, "vowel_counting"),
        ("random_search", "control", 1, *none, "vowel_counting"),
    ]
    assert ask(nothing, "select count(*) from interventions where method = 'random'") == [(0,)]
    assert ask(nothing, "select count(*) from interventions where role = 'grid' "
                        "and method = 'integrated_gradients'") == [(LAYERS * 2,)]


def test_nothing_is_evaluated_twice_for_it(nothing: Path) -> None:
    """What was chosen has the baseline's answers, of the baseline's units."""
    assert ask(nothing, "select count(distinct intervention), count(*) from predictions "
                        "where purpose = 'report' and repeat = 0") == [(2, 2 * 2 * 4)]  # tuned, too
    lines = ask(nothing, "select task, accuracy, prompts from evaluations where purpose = 'report' "
                         "and method in ('none', 'integrated_gradients', 'random_search') "
                         "order by task")
    assert len(lines) == 2 * 4 and len(set(lines)) == 2
    assert ask(nothing, "select count(*) from canaries") == [(1,)]
    assert ask(nothing, "select distinct intervention from task_vectors") == [(BASELINE.digest,)]
    assert ask(nothing, "select distinct intervention from likelihoods") == [(BASELINE.digest,)]


def test_views_and_figures_have_it(nothing: Path) -> None:
    (chosen,) = ask(nothing, 'select method, layer, rate, "count", search_accuracy, '
                             "search_baseline_accuracy from chosen")
    assert chosen == ("integrated_gradients", None, None, 0, 0.0, 0.0)
    titles = [axes.get_title() for axes in drawn(nothing)["search"].figure.axes]
    assert any("chosen: switch nothing off" in title for title in titles)


def test_a_recipe_may_always_prune(info: ModelInfo, tmp_path: Path) -> None:
    made = searched(info, nothing="excluded")
    least = expected(made, LAYERS, 0)
    counts = done_and_resumed(made, tmp_path)
    assert counts["canary"] >= least["canary"].least == 2
    ((count,),) = ask(tmp_path, "select \"count\" from interventions where role = 'chosen'")
    assert count > 0


def test_grid_units_do_not_depend_on_the_rule(info: ModelInfo, tmp_path: Path) -> None:
    rules = [{}, {"choice": "best"}, {"statistic": "margin"}, {"nothing": "excluded"}]
    for search in rules:
        made = Recipe.model_validate(searched(info, **search).model_dump() | {
            "controls": {"random": 1, "random_searches": 1},
            "evaluate": {"tasks": ["to_upper"], "shots": [1], "examples": 2}})
        assert prunelib.run(made, tmp_path).complete
        attempts = ask(tmp_path, "select count(*), count(distinct run) from units "
                                 "where stage = 'search'")
        assert attempts == [(1 + 2 * LAYERS, 1)]  # none after the first run
