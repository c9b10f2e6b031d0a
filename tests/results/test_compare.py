"""Two runs or models side by side: real ones against what their rows say, and hand-made ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from recomputed import difference_interval, flip_p, pairs
from results_folder import NOON, RUN, Folder, rows, run_row

import prunelib
from prunelib.errors import UserError
from prunelib.results.compare.changes import recipe_changes, version_changes, weight_changes
from prunelib.results.compare.pairs import Paired, pair
from prunelib.results.compare.sides import Sides, matched

COPIER, YOUNG = "reference/llama-copier", "reference/llama-young"
PROMPT = ["task", "shots", "seed", "example", "query", "gold", "demonstrations", "answers"]
METHOD = "activation"


def small(name: str, models: list[str], layer: int, **evaluate: Any) -> prunelib.Recipe:
    return prunelib.Recipe.model_validate({
        "name": name, "models": models, "engine": "transformers",
        "attribution": {"method": METHOD, "prompts": 4, "shots": 1},
        "search": {"layers": [layer], "rates": [0.05], "examples": 6, "shots": 1,
                   "nothing": "excluded"},
        "controls": {"random": 1, "random_searches": 1},
        "evaluate": {"tasks": ["to_upper", "antonyms_reference"], "shots": [1, 2],
                     "examples": 12} | evaluate})  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A run of two models; and one of the first of them with another layer and other shots."""
    folders = tmp_path_factory.mktemp("one") / "results", tmp_path_factory.mktemp("two") / "results"
    assert prunelib.run(small("both", [COPIER, YOUNG], 2), folders[0]).complete
    assert prunelib.run(small("one", [COPIER], 1, shots=[2, 3]), folders[1]).complete
    return str(folders[0]), str(folders[1])


def compared(places: list[str], a: str, b: str, flips: int = 3) -> Paired:
    with Sides(places) as sides:
        return pair(*sides.two(a, b), flips)


def answers(place: str, model: str, role: str) -> pd.DataFrame:
    """Answers of a side, from the tables alone."""
    found = pd.DataFrame(rows(Path(place), f"""
        SELECT DISTINCT p.* FROM predictions p JOIN interventions i USING (model, intervention)
        WHERE p.model = '{model}' AND i.role = '{role}' AND purpose = 'report' AND repeat = 0"""))
    for name in ("demonstrations", "answers"):
        found[name] = found[name].map(tuple)
    return found


def joined(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """``correct`` of B beside ``other_correct`` of A, of every prompt that both answered."""
    both = b.merge(a, on=PROMPT, suffixes=("", "_a"))
    return both.rename(columns={"correct_a": "other_correct", "copied_a": "other_copied"})


@pytest.mark.parametrize("what", ["models", "folders"])
def test_differences_are_those_of_the_rows(places: tuple[str, str], what: str) -> None:
    one, two = places
    a, b = ((one, COPIER), (one, YOUNG)) if what == "models" else ((one, COPIER), (two, COPIER))
    found = (compared([one], COPIER, YOUNG) if what == "models" else compared([], one, two))
    lines = found.lines.to_pylist()
    assert {line["role"] for line in lines} == {"baseline", "chosen"}
    expected = 0
    for role in ("baseline", "chosen"):
        both = joined(answers(*a, role), answers(*b, role))
        of_role = {(row["task"], row["shots"]): row for row in lines if row["role"] == role}
        for (task, shots), some in both.groupby(["task", "shots"]):
            expected += 1
            check(of_role[task, shots], some)
        check(of_role[None, None], *(some for _, some in both.groupby("task")))
        expected += 1
    assert len(lines) == expected
    assert any(line["difference"] for line in lines)
    if what == "folders":  # shots 1 and 3 were asked on one side alone
        assert {line["shots"] for line in lines} == {2, None}
        assert "only A has model: reference/llama-young" in found.alone
        assert sum("24 of 48 answers of" in text for text in found.alone) == 4


def check(line: dict[str, Any], *tasks: pd.DataFrame) -> None:
    accuracy_a = sum(task.other_correct.mean() for task in tasks) / len(tasks)
    accuracy_b = sum(task.correct.mean() for task in tasks) / len(tasks)
    copying = sum(task.copied.mean() for task in tasks) / len(tasks)
    assert line["accuracy_a"] == pytest.approx(accuracy_a)
    assert line["accuracy_b"] == pytest.approx(accuracy_b)
    assert line["copying_error_b"] == pytest.approx(copying)
    assert line["difference"] == pytest.approx(accuracy_b - accuracy_a, abs=1e-12)
    ends = difference_interval(*map(pairs, tasks))
    assert (line["difference_low"], line["difference_high"]) == pytest.approx(ends, abs=1e-9)
    assert line["p_value"] == pytest.approx(flip_p(*map(pairs, tasks)), abs=1e-9)
    assert line["n"] == sum(map(len, tasks)) and line["tasks"] == len(tasks)
    assert line["queries"] == sum(task["query"].nunique() for task in tasks)
    assert line["gained"] == sum((task.correct & ~task.other_correct).sum() for task in tasks)
    assert line["lost"] == sum((~task.correct & task.other_correct).sum() for task in tasks)


def test_p_values_are_corrected_over_all_lines(places: tuple[str, str]) -> None:
    from scipy.stats import false_discovery_control

    lines = compared([places[0]], COPIER, YOUNG).lines.to_pandas()
    for mean in (True, False):
        some = lines[lines.task.isna() == mean]
        assert list(some.q_value) == pytest.approx(list(false_discovery_control(some.p_value)))


def test_flips_are_examples_that_one_side_has_right(places: tuple[str, str]) -> None:
    found = compared([places[0]], COPIER, YOUNG, flips=10**6)
    lines = [line for line in found.lines.to_pylist() if line["task"] is None]
    flips = found.flips.to_pylist()
    assert flips
    for line in lines:
        own = [flip["gained"] for flip in flips if flip["role"] == line["role"]]
        assert (own.count(True), own.count(False)) == (line["gained"], line["lost"])
    few = compared([places[0]], COPIER, YOUNG, flips=2).flips.to_pylist()
    for line in lines:
        own = [flip["gained"] for flip in few if flip["role"] == line["role"]]
        assert own.count(True) == min(2, line["gained"])
        assert own.count(False) == min(2, line["lost"])
    assert not compared([places[0]], COPIER, YOUNG, flips=0).flips.num_rows


def test_a_run_beside_itself_does_not_differ(places: tuple[str, str]) -> None:
    with Sides([]) as sides:
        a, b = sides.two(places[0], places[0])
        found = pair(a, b, 3)
        assert recipe_changes(a, b) == version_changes(a, b) == []
        assert weight_changes(a, b) == {COPIER: [], YOUNG: []}
    assert not found.alone and not found.flips.num_rows
    for line in found.lines.to_pylist():
        assert line["difference"] == 0 and line["p_value"] == 1


def test_what_was_changed_is_told(places: tuple[str, str]) -> None:
    with Sides([places[0]]) as sides:
        a, b = sides.two(*places)
        changed = {change.what: (change.a, change.b) for change in recipe_changes(a, b)}
        assert changed["search.layers"] == ([2], [1])
        assert changed["evaluate.shots"] == ([1, 2], [2, 3])
        assert changed["models[1].id"] == (YOUNG, None)
        assert not {"evaluate.examples", "search.rates", "models[0].id"} & changed.keys()
        assert weight_changes(a, b) == {COPIER: []}
        ((models, weights),) = weight_changes(*sides.two(COPIER, YOUNG)).items()
    assert models == f"{COPIER} and {YOUNG}"
    digests = {row["model"]: row["weights_digest"]
               for row in rows(Path(places[0]), "SELECT * FROM models")}
    (only,) = weights
    assert only == ("weights_digest", digests[COPIER], digests[YOUNG])


def two_runs(folder: Folder) -> None:
    """Run ``a-1`` and a later one, ``b-1``, each with a baseline and no answers yet."""
    for minute, run in enumerate(("a-1", "b-1")):
        folder.add("runs", run_row(run, started=NOON.replace(minute=minute)), run)
        folder.intervention("base", "none", "baseline", unit_id=run)


def write(folder: Folder) -> None:
    folder.write({"a-1": ["a-1"], "b-1": ["b-1"]})


def test_prompts_with_other_demonstrations_are_not_the_same(folder: Folder) -> None:
    two_runs(folder)
    folder.answers("base", "10c1", unit_id="a-1")
    folder.answers("base", "11", unit_id="b-1")
    folder.answers("base", "1111", unit_id="b-1", demonstrations=["x", "other"], task="u")
    folder.answers("base", "0000", unit_id="a-1", task="u")
    folder.answers("base", "10", unit_id="a-1", task="v", shots=0)
    write(folder)
    found = compared([str(folder.root)], "a-1", "b-1")
    assert [(line["task"], line["n"], line["gained"], line["lost"])
            for line in found.lines.to_pylist()] == [(None, 2, 1, 0), ("t", 2, 1, 0)]
    assert found.alone == [
        "only A has, of m, none: v",
        "m, none: 6 of 8 answers of A are to prompts that B was not asked",
        "m, none: 4 of 6 answers of B are to prompts that A was not asked"]
    (flip,) = found.flips.to_pylist()
    assert (flip["query"], flip["prediction_a"], flip["prediction_b"]) == ("q1", "z", "a")


def test_choices_of_two_methods_are_paired_if_each_side_has_one(folder: Folder) -> None:
    two_runs(folder)
    for run, methods in (("a-1", ["ig"]), ("b-1", ["act"])):
        folder.answers("base", "11", unit_id=run)
        for method in methods:
            folder.intervention(f"i-{method}", method, "chosen", unit_id=run)
            folder.answers(f"i-{method}", "01" if run == "a-1" else "10", unit_id=run)
    write(folder)
    found = compared([str(folder.root)], "a-1", "b-1")
    assert [(line["method_a"], line["method_b"], line["n"]) for line in found.lines.to_pylist()
            if line["task"] is None] == [("none", "none", 2), ("ig", "act", 2)]
    assert found.alone == []


def test_several_interventions_of_a_method_need_one_counterpart_each(folder: Folder) -> None:
    two_runs(folder)
    for run, seeds in (("a-1", (0, 1)), ("b-1", (1, 2, 3))):
        folder.answers("base", "11", unit_id=run)
        for seed in seeds:
            folder.intervention(f"{run}-{seed}", "ig", "chosen", unit_id=run, seed=seed)
            folder.answers(f"{run}-{seed}", "10", unit_id=run)
    write(folder)
    found = compared([str(folder.root)], "a-1", "b-1")
    chosen = [line for line in found.lines.to_pylist() if line["role"] == "chosen"]
    assert [line["n"] for line in chosen] == [2, 2]  # seed 1 alone, for the task and the mean
    assert found.alone == [
        "m, ig: 1 interventions of A (each on a task) have no single counterpart",
        "m, ig: 2 interventions of B (each on a task) have no single counterpart"]


def test_sides_are_runs_models_and_folders(folder: Folder, tmp_path: Path) -> None:
    two_runs(folder)
    write(folder)
    other = Folder(tmp_path / "other")
    two_runs(other)
    other.write({"b-1": ["a-1", "b-1"]})
    here, there = str(folder.root), str(other.root)
    with Sides([here, there]) as sides:
        # A run that both have is the first one's for A and the last one's for B.
        assert [side.place for side in sides.two("b-1", "b-1")] == [here, there]
        assert [side.name for side in sides.two("m", here)] == ["b-1", "b-1"]
        assert sides.two("a-1", there)[0].models == ("m",)
        with pytest.raises(UserError, match="unknown run, model or folder 'a-2': did you mean a-1"):
            sides.two("b-1", "a-2")
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match="holds no results"):
            sides.two(str(tmp_path / "empty"), here)
    with Sides([]) as sides, pytest.raises(UserError, match="--results"):
        sides.two("a-1", here)


def test_a_pair_is_what_has_a_key_alone() -> None:
    first = str.lower
    assert matched(["a", "B"], ["b", "a"], str, first) == ([("a", "a"), ("B", "b")], [], [])
    assert matched(["x"], ["y"], str) == ([("x", "y")], [], [])
    assert matched(["a", "A"], ["a", "b"], first) == ([], ["a", "A"], ["a", "b"])
    assert matched([], ["y"], str) == ([], [], ["y"])


def test_runs_that_share_no_model_name_may_have_one_each(folder: Folder) -> None:
    two_runs(folder)
    for run, model in (("a-1", "m"), ("b-1", "n")):
        folder.intervention("base", "none", "baseline", unit_id=f"{run}{model}", model=model)
        folder.answers("base", "10" if model == "m" else "11", unit_id=f"{run}{model}", model=model)
    folder.write({"a-1": ["a-1m"]})
    folder.store.write("run_units", "n", [
        {"run": "b-1", "unit_id": "b-1n", "stage": "evaluate", "model": "n"}])
    found = compared([str(folder.root)], "m", "n")
    (line, _) = found.lines.to_pylist()
    assert (line["model_a"], line["model_b"], line["difference"]) == ("m", "n", 0.5)
    assert RUN not in str(found.alone)
