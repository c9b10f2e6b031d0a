"""Everything that a recipe can choose, on tiny models: it runs, is counted, and is resumed."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pipeline.small import LAYERS, ask, done_and_resumed, drawn, recipe

import prunelib
from prunelib.attribution.integrated_gradients import layer_path
from prunelib.attribution.objectives.base import make_objective
from prunelib.attribution.scorers.base import load_scorer
from prunelib.errors import UserError
from prunelib.models import ModelInfo, load
from prunelib.pipeline.driver import prepare
from prunelib.pipeline.stages.attribution import POOL, POOLS
from prunelib.pipeline.stages.registry import counts as expected
from prunelib.recipe.attribution import ObjectiveSpec
from prunelib.recipe.checks import check_recipe
from prunelib.recipe.recipe import Recipe
from prunelib.tasks import draw, get_task, numbers
from prunelib.tasks.tokenization import encode

DATA = Path(__file__).parent.parent / "data"
#: A task at which the reference GPT-2 errs now and then.
RARE = "antonyms_reference"


def test_a_format_whose_end_of_a_pair_is_in_an_answer_is_refused(info: ModelInfo) -> None:
    evaluate = {"tasks": ["present_past_perfect"], "shots": [1], "examples": 4}
    with pytest.raises(UserError, match=r"format colon: task 'present_past_perfect' has answers"):
        check_recipe(recipe(info, format="colon", evaluate=evaluate))
    check_recipe(recipe(info, evaluate=evaluate))


@pytest.mark.parametrize("fmt", ["comma", "example", "colon"])
def test_every_stage_writes_prompts_in_the_format_of_the_recipe(fmt: str, info: ModelInfo,
                                                                 tmp_path: Path) -> None:
    attribution = {"prompts": 4, "shots": 2, "method": "gradient_activation", "choose": "wrong",
                   "objective": {"name": "copy_shift", "tokens": "all"}}
    search = {"rates": [0.2], "examples": 5, "shots": 2, "layers": [1]}
    made = recipe(info, format=fmt, attribution=attribution, search=search,
                  evaluate={"tasks": ["to_upper"], "shots": [1], "examples": 4})
    counts = done_and_resumed(made, tmp_path / "r")
    assert ask(tmp_path / "r", "select distinct format from attributions") == [(fmt,)]
    loaded, found = load(info), {}
    for split, task, shots, count in (("attribute", "vowel_counting", 2, 16),
                                      ("search", "vowel_counting", 2, 5),
                                      ("report", "to_upper", 1, 4)):
        examples = draw(get_task(task), split=split, shots=shots, seed=0, count=count,  # type: ignore[arg-type]
                        prompt_format=fmt)
        found[split] = [encode(e, loaded.tokenizer) for e in examples]
        told = ask(tmp_path / "r", "select example, any_value(prompt_tokens) from predictions "
                                   f"where split = '{split}' and format = '{fmt}' "
                                   "group by example order by example")
        assert told == [(i, len(e.prompt)) for i, e in enumerate(found[split])]
    # The scores are those of these very prompts.
    wrong = [e for e, (right,) in zip(found["attribute"], ask(
        tmp_path / "r", "select correct from predictions where purpose = 'pool' "
                        "order by example"), strict=True) if not right][:4]
    expected = load_scorer("gradient_activation")(
        loaded, layer_path(loaded, 1), wrong, make_objective(ObjectiveSpec(tokens="all")), 32
    )[0].mean(0)
    scores = ask(tmp_path / "r", 'select score from attributions order by "index"')
    assert np.allclose([score for (score,) in scores], expected, atol=1e-7)
    # After a blank, all answers begin with the same character.
    first = Recipe.model_validate(made.model_dump() | {"attribution": attribution | {
        "objective": "copy_shift"}})
    with pytest.raises(UserError, match="begin with the same token") if fmt != "example" else (
            contextlib.nullcontext()):
        prepare(first)
    by_margin = Recipe.model_validate(made.model_dump() | {
        "search": made.search.model_dump() | {"statistic": "margin"}})
    with pytest.raises(UserError, match="margin compares nothing") if fmt != "example" else (
            contextlib.nullcontext()):
        prepare(by_margin)
    # An ablation that was found in one format is reported in another.
    other = Recipe.model_validate(made.model_dump() | {
        "evaluate": made.evaluate.model_dump() | {"format": "arrow"}})
    again = prunelib.run(other, tmp_path / "r")
    assert again.units_done == counts.pop("evaluate")
    assert again.units_reused == sum(counts.values())


@pytest.mark.parametrize("strategy", [
    "successive_halving", *(pytest.param(name, marks=pytest.mark.long)
                            for name in ("coarse_to_fine", "attribution_mass"))])
def test_strategies(strategy: str, info: ModelInfo, tmp_path: Path) -> None:
    made = recipe(info, search={"rates": [0.1, 0.2, 0.5], "examples": 16, "shots": 2,
                                "strategy": strategy, "statistic": "margin"})
    done_and_resumed(made, tmp_path)
    (count,) = ask(tmp_path, "select sum(n) from grid where method = 'integrated_gradients'")
    assert 0 < count[0] < LAYERS * 3 * 16
    (chosen,) = ask(tmp_path, "select n from grid join chosen "
                              "using (run, model, method, intervention)")
    assert chosen == (16,)
    assert set(drawn(tmp_path)) == {"leaderboard", "search", "tasks"}  # with cells left out


def test_each_task_with_seeds_and_transfer(info: ModelInfo, tmp_path: Path) -> None:
    tasks = ["to_upper", "list_first"]
    made = recipe(
        info,
        attribution={"proxy": "each_task", "seeds": [0, 1], "prompts": 4, "shots": 2, "block": 4,
                     "max_nodes": 4},
        search={"rates": [0.05, 0.1, 0.2, 0.5], "split": "attribute", "statistic": "margin"},
        evaluate={"tasks": tasks, "shots": [1, 2], "examples": 4, "transfer": True},
    )
    check_recipe(made)
    counts = done_and_resumed(made, tmp_path)
    known = expected(made, LAYERS, 0)
    assert counts["attribute"] == known["attribute"].least == 2 * 2 * LAYERS
    assert counts["search"] == known["search"].most == 4 + LAYERS * (4 + 2)
    # Every seed of every task has its control, of its layer and size.
    cells = "select only_task, layer, \"count\" from interventions where role = '{}' and method {}"
    chosen = set(ask(tmp_path, cells.format("chosen", "<> 'none'")))
    assert len(chosen) > len(tasks)  # seeds chose unlike
    assert chosen == set(ask(tmp_path, cells.format("control", "= 'random'")))
    assert ask(tmp_path, "select count(*) from leaderboard where difference_to_random is null "
                         "and method = 'integrated_gradients'") == [(0,)]
    digests = ask(tmp_path, "select count(distinct intervention) from interventions "
                            "where role <> 'grid'")
    if digests[0][0] == known["canary"].most:
        assert counts == {stage: count.most for stage, count in known.items()}
    labels = ask(tmp_path, "select distinct proxy, only_task, seed from interventions "
                           "where role = 'chosen' order by all")
    assert labels == [(t, t, s) for t in sorted(tasks) for s in (0, 1)]
    moved = Counter(ask(tmp_path, "select chosen_on, task from transfer"))
    assert moved == {(a, b): 2 * 2 for a in tasks for b in tasks}  # seeds × shots
    found = ask(tmp_path, "select method, task, seeds, accuracy_sd is not null from seeds "
                          "where role = 'chosen' order by all")
    assert found == [("integrated_gradients", t, 2, True) for t in sorted(tasks)]
    # On the report split an ablation stands for its own task alone.
    assert ask(tmp_path, "select distinct tasks, n from leaderboard where method = "
                         "'integrated_gradients'") == [(2, 2 * 2 * 2 * 4)]
    (cells,) = ask(tmp_path, "select min(n), max(n) from grid where method <> 'random_search'")
    assert cells == (4, 4)
    assert set(drawn(tmp_path)) == {"leaderboard", "search", "tasks"}


def test_a_local_data_set_is_a_task_with_options(info: ModelInfo, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a first paragraph\n\nand\na second\n \nthird\n")
    made = recipe(
        info,
        tasks=[{"name": "copa", "path": str(DATA / "balanced_copa"),
                "template": "{choice1} or {choice2}\n{answer}", "answers": {0: "A", 1: "B"},
                "splits": {"attribute": "train", "search": "train", "report": "test"}}],
        attribution={"proxy": "copa", "prompts": 1, "shots": 0, "objective": "max_logit",
                     "max_nodes": 4},
        search={"rates": [0.2], "examples": 1, "shots": 0},
        evaluate={"tasks": ["copa"], "shots": [0], "examples": 2, "scoring": "options",
                  "capability": {"tasks": ["copa"], "examples": 2, "text": str(text)}},
    )
    check_recipe(made)
    counts = done_and_resumed(made, tmp_path / "r")
    known = expected(made, LAYERS, 0)
    assert counts["attribute"] == known["attribute"].least
    assert counts["search"] == known["search"].least
    answers = ask(tmp_path / "r", "select distinct prediction from predictions "
                                  "where purpose in ('report', 'capability')")
    assert {a for (a,) in answers} <= {"A", "B"}
    assert ask(tmp_path / "r", "select distinct format from predictions") == [("own",)]
    assert ask(tmp_path / "r", "select distinct source, texts from capability") == [
        ("text.txt", 3)]
    assert ask(tmp_path / "r", "select distinct prompts from evaluations "
                               "where purpose = 'report'") == [(2,)]


@pytest.mark.parametrize("choose", ["correct", "wrong"])
def test_prompts_are_chosen_by_what_the_model_answers(choose: str, tmp_path: Path) -> None:
    """By a model that is right half of the time; a block of one prompt tells which they are."""
    made = Recipe.model_validate({
        "name": "chosen", "models": ["reference/llama-young"], "engine": "transformers",
        "attribution": {"proxy": "list_last", "choose": choose, "prompts": 4, "shots": 2,
                        "block": 1, "max_nodes": 4},
        "search": {"layers": [3], "rates": [0.1], "examples": 4},
        "controls": {"random": 0, "random_searches": 0},
        "evaluate": {"tasks": ["to_upper"], "shots": [1], "examples": 2},
    })  # fmt: skip
    counts = done_and_resumed(made, tmp_path)
    known = expected(made, 4, 0)
    assert counts["search"] == known["search"].least == known["search"].most
    assert counts["attribute"] == known["attribute"].least
    pool = ask(tmp_path, "select example, correct from predictions where purpose = 'pool' "
                         "order by example")
    assert len(pool) == 16 and 0 < sum(right for _, right in pool) < 16
    used = ask(tmp_path, "select distinct example from prompt_scores order by example")
    fitting = [example for example, right in pool if right == (choose == "correct")]
    assert [start for (start,) in used] == fitting[:4]


def test_prompts_that_the_model_never_gets_right_stop_it_with_the_reason(
    info: ModelInfo, tmp_path: Path
) -> None:
    made = recipe(info, attribution={"choose": "correct", "prompts": 6, "shots": 2})
    report = prunelib.run(made, tmp_path)
    assert not report.complete
    ((why,),) = report.stopped.values()
    assert "fewer than prompts: 6" in why


def test_more_prompts_are_answered_until_enough_are_wrong(tmp_path: Path) -> None:
    """By a model that is nearly always right; and where there never are enough, others go on."""
    made = Recipe.model_validate({
        "name": "rare", "models": ["reference/gpt2"], "engine": "transformers",
        "attribution": [
            {"name": name, "method": "gradient_activation", "proxy": proxy, "choose": choose,
             "prompts": 2, "shots": 3}
            for name, proxy, choose in (("main", "to_upper", "random"), ("rare", RARE, "wrong"),
                                        ("never", "to_upper", "wrong"))],
        "search": {"layers": [3], "rates": [0.1], "examples": 4},
        "controls": {"random": 0, "random_searches": 0},
        "evaluate": {"tasks": ["to_upper"], "shots": [1], "examples": 2},
    })  # fmt: skip
    report = prunelib.run(made, tmp_path)
    asked = len(numbers(get_task("to_upper"), split="attribute", shots=3, seed=0,
                        count=POOL * POOLS * 2))
    assert report.skipped == {"reference/gpt2": [
        f"attribution 'never': of {asked} prompts of 'to_upper' the model answers 0 "
        "wrongly, fewer than prompts: 2"]}
    assert not report.complete and not report.failed and not report.stopped
    pool = ask(tmp_path, "select example, correct from predictions where purpose = 'pool' "
                         f"and task = '{RARE}' order by example")
    wrong = [example for example, right in pool if not right]
    assert POOL * 2 < len(pool) < POOL * POOLS * 2 and len(wrong) >= 2 > sum(
        not right for _, right in pool[: -POOL * 2])
    chosen = ask(tmp_path, "select method from interventions where role = 'chosen' order by method")
    assert chosen == [("main",), ("rare",)]


@pytest.mark.parametrize(("family", "projection"), [("mamba", "up"), ("gpt2", "gate")])
def test_a_projection_that_a_family_has_not(
    family: str, projection: str, families: Callable[[str], ModelInfo]
) -> None:
    made = recipe(families(family), attribution={"projection": projection})
    with pytest.raises(UserError, match=f"of '{family}' has no projection '{projection}'"):
        prepare(made)
