"""Everything that a recipe can choose, on tiny models: it runs, is counted, and is resumed."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pipeline.small import recipe

import prunelib
from prunelib.attribution.integrated_gradients import layer_path
from prunelib.attribution.objectives import make_objective
from prunelib.attribution.scorers import SCORERS
from prunelib.errors import UserError
from prunelib.models import ModelInfo, load
from prunelib.pipeline.driver import prepare
from prunelib.pipeline.plan import estimate
from prunelib.pipeline.progress import expected_units, read_progress
from prunelib.pipeline.stages.attribution import POOL, POOLS
from prunelib.pipeline.units.executor import InlineExecutor
from prunelib.pipeline.units.unit import Unit
from prunelib.pipeline.units.worker import Worker
from prunelib.recipe.base import ObjectiveSpec
from prunelib.recipe.recipe import Recipe
from prunelib.results.figures.report import draw_report
from prunelib.results.query import open_results
from prunelib.results.storage.store import Store
from prunelib.search.selection import random_order
from prunelib.tasks import draw, get_task
from prunelib.tasks.tokenization import encode

DATA = Path(__file__).parent.parent / "data"
LAYERS = 2
#: A task at which the reference GPT-2 errs now and then.
RARE = "antonyms"
#: Hidden units of a layer, of which the highest, lowest and largest scores have unlike numbers.
PLANTED = [10, 13, 18, 23, 24, 28, 36, 40, 45, 46]


class Refusing(InlineExecutor):
    def submit(self, unit: Unit) -> None:
        raise AssertionError(f"{unit.id} was done already")


def ask(results: Path, sql: str) -> list[tuple[Any, ...]]:
    return open_results(results).execute(sql).fetchall()


def done_and_resumed(made: Recipe, results: Path) -> dict[str, int]:
    """Run a recipe, twice; the units of its stages."""
    report = prunelib.run(made, results)
    assert report.complete, [a.error_text for a in report.failed] or report.stopped
    again = prunelib.run(made, results, Refusing(lambda: Worker(Store.open(results))))
    assert again.units_done == 0 and again.units_reused == report.units_done
    counts = {stage.stage: (stage.done, stage.total) for stage in read_progress(results).stages}
    planned = {line.stage: (line.done, line.units) for line in estimate(made, results)}
    assert counts == planned and all(done == total for done, total in counts.values())
    assert all(line.teraflop == 0 for line in estimate(made, results))
    return {stage: done for stage, (done, _) in counts.items()}


def each(**common: Any) -> list[dict[str, Any]]:
    """One attribution of every kind, each with a name; one level of nodes."""
    kinds: dict[str, dict[str, Any]] = {
        "layer": {}, "released": {"variant": "released"}, "up": {"projection": "up"},
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
    plain = {"prompts": 4, "shots": 2, "block": 2, "max_nodes": 9}
    return [{"name": name} | plain | kind | common for name, kind in kinds.items()]


@pytest.fixture(scope="module")
def every(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """Every attribution in one recipe, finished."""
    results = tmp_path_factory.mktemp("every") / "r"
    made = recipe(info, attribution=each(), search={"rates": [0.2], "examples": 4, "shots": 2},
                  evaluate={"tasks": ["to_upper"], "shots": [1], "examples": 4,
                            "capability": {"text": "prompts", "examples": 5}})
    made.check()
    counts = done_and_resumed(made, results)
    known = expected_units(made, LAYERS)
    # Attributions that share units (bottom and absolute have those of layer) need fewer, and so
    # does whatever was chosen twice.
    assert all(counts[stage] <= known[stage] for stage in counts)
    assert counts["attribute"] == known["attribute"] - 2 * LAYERS * 2
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
    chosen = dict(ask(results, "select method, ablation from ablations where role = 'chosen'"))
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


def test_every_choice_is_compared_with_random_units_of_its_layer_site_and_size(
    every: tuple[Recipe, Path]
) -> None:
    made, results = every
    chosen, controls = (
        ask(results, 'select distinct method, site, layer, "count", ablation from ablations '
                     f"where role = '{role}' and method <> 'random_search'")
        for role in ("chosen", "control"))
    assert len({cell[1:4] for cell in chosen}) > 1  # else there is nothing to tell apart
    assert sorted(cell[1:4] for cell in controls) == sorted({cell[1:4] for cell in chosen})
    of_cell = {cell[1:4]: cell[4] for cell in controls}
    accuracy = dict(ask(results, "select distinct ablation, accuracy from evaluations "
                                 "where split = 'report'"))
    told = dict(ask(results, "select method, difference_to_random from scorers"))
    assert told == {cell[0]: pytest.approx(accuracy[cell[4]] - accuracy[of_cell[cell[1:4]]])
                    for cell in chosen}
    # The leaderboard has random units once for all who chose their cell.
    named = ask(results, "select matched_to from leaderboard where method = 'random'")
    assert len(named) == len(controls)
    assert sorted(", ".join(m for (m,) in named).split(", ")) == sorted(
        spec.label for spec in made.attribution)
    assert len(draw_report(results, results / "figures")) == len(made.attribution)


def test_wrong_prompts_are_those_that_the_model_answers_wrongly(every: tuple[Recipe, Path]) -> None:
    _, results = every
    pool = ask(results, "select correct from predictions where split = 'attribute'")
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
    assert ask(results, "select distinct task from evaluations where split = 'report'") == [
        ("to_upper",)]


def test_a_format_whose_end_of_a_pair_is_in_an_answer_is_refused(info: ModelInfo) -> None:
    evaluate = {"tasks": ["present_past_perfect"], "shots": [1], "examples": 4}
    with pytest.raises(UserError, match=r"format colon: task 'present_past_perfect' has answers"):
        recipe(info, format="colon", evaluate=evaluate).check()
    recipe(info, evaluate=evaluate).check()


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
        tmp_path / "r", "select correct from predictions where split = 'attribute' "
                        "order by example"), strict=True) if not right][:4]
    expected = SCORERS["gradient_activation"](
        loaded, layer_path(loaded, 1), wrong, make_objective(ObjectiveSpec(tokens="all")), 32)[0]
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


@pytest.fixture(scope="module")
def planted(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rankings of every direction, of a model of which ten hidden units are said to copy."""
    model = Path(shutil.copytree(info.path, tmp_path_factory.mktemp("planted") / "model"))
    (model / "planted.json").write_text(json.dumps({"layer": 1, "units": PLANTED}))
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
    made.check()
    done_and_resumed(made, results)
    return results


def scores_of(results: Path, method: str, layer: int) -> NDArray[np.float64]:
    found = ask(results, f"select score from attributions where method = '{method}' "
                         f"and layer = {layer} order by \"index\"")
    return np.array([score for (score,) in found])


def test_ranks_are_the_order_in_which_units_are_switched_off(planted: Path) -> None:
    for method, ascending in {"highest": -1.0, "lowest": 1.0, "shuffled": -1.0, "down": -1.0,
                              "largest": None}.items():
        scores = scores_of(planted, method, 1)
        ranks = [rank for (rank,) in ask(
            planted, f"select \"rank\" from attributions where method = '{method}' and layer = 1 "
                     "order by \"index\"")]
        key = -np.abs(scores) if ascending is None else ascending * scores
        assert (np.argsort(ranks) == np.argsort(key, kind="stable")).all(), method
        for layer, count, off in ask(
                planted, "select layer, \"count\", component_indices from ablations "
                         f"where role = 'grid' and method = '{method}'"):
            first = ask(planted, f"select \"index\" from attributions where method = '{method}' "
                                 f"and layer = {layer} and \"rank\" <= {count}")
            assert sorted(off) == sorted(index for (index,) in first)


def test_recall_is_of_the_units_that_would_go_off_first_and_of_their_site(planted: Path) -> None:
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


@pytest.mark.parametrize("strategy", ["coarse_to_fine", "successive_halving", "attribution_mass"])
def test_strategies(strategy: str, info: ModelInfo, tmp_path: Path) -> None:
    made = recipe(info, search={"rates": [0.1, 0.2, 0.5], "examples": 16, "shots": 2,
                                "strategy": strategy, "statistic": "margin"})
    done_and_resumed(made, tmp_path)
    (count,) = ask(tmp_path, "select sum(n) from grid where method = 'integrated_gradients'")
    assert 0 < count[0] < LAYERS * 3 * 16
    (chosen,) = ask(tmp_path, "select n from grid join chosen using (run, model, method, ablation)")
    assert chosen == (16,)
    assert len(draw_report(tmp_path, tmp_path / "figures")) == 1  # with cells left out


def test_each_task_with_seeds_and_transfer(info: ModelInfo, tmp_path: Path) -> None:
    tasks = ["to_upper", "list_first"]
    made = recipe(
        info,
        attribution={"proxy": "each_task", "seeds": [0, 1], "prompts": 4, "shots": 2, "block": 4,
                     "max_nodes": 9},
        search={"rates": [0.05, 0.1, 0.2, 0.5], "split": "attribute", "statistic": "margin"},
        evaluate={"tasks": tasks, "shots": [1, 2], "examples": 4, "transfer": True},
    )
    made.check()
    counts = done_and_resumed(made, tmp_path)
    known = expected_units(made, LAYERS)
    assert counts["attribute"] == known["attribute"] == 2 * 2 * LAYERS
    assert counts["search"] == known["search"] == 4 + LAYERS * (4 + 2)
    # Every seed of every task has its control, of its layer and size.
    cells = "select only_task, layer, \"count\" from ablations where role = '{}' and method {}"
    chosen = set(ask(tmp_path, cells.format("chosen", "<> 'none'")))
    assert len(chosen) > len(tasks)  # seeds chose unlike
    assert chosen == set(ask(tmp_path, cells.format("control", "= 'random'")))
    assert ask(tmp_path, "select count(*) from leaderboard where difference_to_random is null "
                         "and method = 'integrated_gradients'") == [(0,)]
    digests = ask(tmp_path, "select count(distinct ablation) from ablations where role <> 'grid'")
    if digests[0][0] == known["canary"]:
        assert counts == known
    labels = ask(tmp_path, "select distinct proxy, only_task, seed from ablations "
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
    assert len(draw_report(tmp_path, tmp_path / "figures")) == 4


def test_a_local_data_set_is_a_task_with_options(info: ModelInfo, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a first paragraph\n\nand\na second\n \nthird\n")
    made = recipe(
        info,
        tasks=[{"name": "copa", "path": str(DATA / "balanced_copa"),
                "template": "{choice1} or {choice2}\n{answer}", "answers": {0: "A", 1: "B"},
                "splits": {"attribute": "train", "search": "train", "report": "test"}}],
        attribution={"proxy": "copa", "prompts": 1, "shots": 0, "objective": "max_logit",
                     "max_nodes": 9},
        search={"rates": [0.2], "examples": 1, "shots": 0},
        evaluate={"tasks": ["copa"], "shots": [0], "examples": 2, "scoring": "options",
                  "capability": {"tasks": ["copa"], "examples": 2, "text": str(text)}},
    )
    made.check()
    counts = done_and_resumed(made, tmp_path / "r")
    known = expected_units(made, LAYERS)
    assert counts["attribute"] == known["attribute"] and counts["search"] == known["search"]
    answers = ask(tmp_path / "r", "select distinct prediction from predictions "
                                  "where split in ('report', 'capability')")
    assert {a for (a,) in answers} <= {"A", "B"}
    assert ask(tmp_path / "r", "select distinct format from predictions") == [("own",)]
    assert ask(tmp_path / "r", "select distinct source, texts from capability") == [
        ("text.txt", 3)]
    assert ask(tmp_path / "r", "select distinct n from evaluations where split = 'report'") == [
        (2,)]


@pytest.mark.parametrize("choose", ["correct", "wrong"])
def test_prompts_are_chosen_by_what_the_model_answers(choose: str, tmp_path: Path) -> None:
    """By a model that is right half of the time; a block of one prompt tells which they are."""
    made = Recipe.model_validate({
        "name": "chosen", "models": ["reference/llama-young"], "engine": "transformers",
        "attribution": {"proxy": "list_last", "choose": choose, "prompts": 4, "shots": 2,
                        "block": 1, "max_nodes": 9},
        "search": {"layers": [3], "rates": [0.1], "examples": 4}, "controls": {"random": 0},
        "evaluate": {"tasks": ["to_upper"], "shots": [1], "examples": 2},
    })  # fmt: skip
    counts = done_and_resumed(made, tmp_path)
    assert counts == expected_units(made, 4)
    pool = ask(tmp_path, "select example, correct from predictions where split = 'attribute' "
                         "order by example")
    assert len(pool) == 16 and 0 < sum(right for _, right in pool) < 16
    used = ask(tmp_path, "select distinct start from attribution_parts order by start")
    fitting = [example for example, right in pool if right == (choose == "correct")]
    assert [start for (start,) in used] == fitting[:4]


def test_prompts_that_the_model_never_gets_right_stop_it_with_the_reason(
    info: ModelInfo, tmp_path: Path
) -> None:
    made = recipe(info, attribution={"choose": "correct", "prompts": 6, "shots": 2})
    report = prunelib.run(made, tmp_path)
    assert not report.complete
    (why,) = report.stopped.values()
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
        "search": {"layers": [3], "rates": [0.1], "examples": 4}, "controls": {"random": 0},
        "evaluate": {"tasks": ["to_upper"], "shots": [1], "examples": 2},
    })  # fmt: skip
    report = prunelib.run(made, tmp_path)
    assert report.skipped == {"reference/gpt2": [
        f"attribution 'never': of {POOL * POOLS * 2} prompts of 'to_upper' the model answers 0 "
        "wrongly, fewer than prompts: 2"]}
    assert not report.complete and not report.failed and not report.stopped
    pool = ask(tmp_path, "select example, correct from predictions where split = 'attribute' "
                         f"and task = '{RARE}' order by example")
    wrong = [example for example, right in pool if not right]
    assert POOL * 2 < len(pool) < POOL * POOLS * 2 and len(wrong) >= 2 > sum(
        not right for _, right in pool[: -POOL * 2])
    chosen = ask(tmp_path, "select method from ablations where role = 'chosen' order by method")
    assert chosen == [("main",), ("rare",)]


@pytest.mark.parametrize(("family", "projection"), [("mamba", "up"), ("gpt2", "gate")])
def test_a_projection_that_a_family_has_not(
    family: str, projection: str, families: Callable[[str], ModelInfo]
) -> None:
    made = recipe(families(family), attribution={"projection": projection})
    with pytest.raises(UserError, match=f"of '{family}' has no projection '{projection}'"):
        prepare(made)
