"""Every number of the views on a real run, found again from the raw rows with pandas and scipy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from recomputed import (
    clusters,
    difference_interval,
    drawn,
    flip_p,
    p_against_draws,
    pairs,
    share_interval,
)
from results_folder import rows
from scipy.stats import false_discovery_control
from scipy.stats import t as student

import prunelib

PROMPT = ["engine", "task", "shots", "seed", "example", "format"]
RANDOM = ("random", "random_search")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two attributions of a model that copies, with several random sets and searches."""
    folder = tmp_path_factory.mktemp("real") / "results"
    recipe = prunelib.Recipe.model_validate({
        "name": "real", "models": ["reference/llama-copier"], "engine": "transformers",
        "attribution": [{"prompts": 6, "max_nodes": 4}, {"method": "wanda", "prompts": 6}],
        "search": {"rates": [0.1, 0.3], "examples": 10, "layers": [1, 2],
                   "nothing": "excluded"},
        "controls": {"random": 3},
        "evaluate": {"tasks": ["to_upper", "next_letter", "antonyms_reference"],
                     "shots": [0, 2],
                     "seeds": [0, 1], "examples": 14},
    })  # fmt: skip
    assert prunelib.run(recipe, folder).complete
    return folder


@pytest.fixture(scope="module")
def given(results: Path) -> pd.DataFrame:
    """Reported answers, each under every label that its intervention has."""
    answers = pd.DataFrame(rows(results, "FROM predictions"))
    labels = pd.DataFrame(rows(results, "FROM interventions")).rename(columns={"seed": "draw"})
    answers = answers[(answers.purpose == "report") & (answers.repeat == 0)]
    labels = labels[labels.role != "grid"][["intervention", "method", "role", "layer", "rate",
                                           "draw"]].drop_duplicates()
    return answers.merge(labels, on="intervention")


def matched(given: pd.DataFrame, method: str) -> pd.DataFrame:
    """Answers of the random sets that have the layer and size of a method's choice."""
    choice = given[(given.method == method) & (given.role == "chosen")].iloc[0]
    return given[(given.method == "random") & (given.layer == choice.layer)
                 & (given.rate == choice.rate)]


def beside(ours: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Pairs of answers to the same prompt; ``set`` is the draw of the other."""
    other = others[[*PROMPT, "correct", "copied", "draw"]].drop_duplicates()
    other = other.rename(columns={"correct": "other_correct", "copied": "other_copied",
                                  "draw": "set"})
    return ours.drop(columns="draw").merge(other, on=PROMPT)


def difference(answers: pd.DataFrame) -> float:
    """Mean over tasks."""
    gaps = answers.correct.astype(int) - answers.other_correct.astype(int)
    return float(gaps.groupby(answers.task).mean().mean())


def of_sets(answers: pd.DataFrame) -> list[float]:
    return [difference(one) for _, one in answers.groupby("set")]


def ends(row: dict[str, Any], name: str) -> tuple[float, float]:
    return row[f"{name}_low"], row[f"{name}_high"]


def tasks(answers: pd.DataFrame) -> list[list[list[tuple[int, int]]]]:
    return [pairs(of_task) for _, of_task in answers.groupby("task")]


def near(expected: Any) -> Any:
    return pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_run_has_something_to_tell(given: pd.DataFrame) -> None:
    accuracy = given.groupby("method").correct.mean()
    assert accuracy.nunique() > 2 and accuracy.min() > 0.05 and accuracy.max() < 1
    counts = given[given.role == "baseline"].groupby("task")
    assert (counts["query"].nunique() < counts.size()).all()  # queries come again


def test_evaluations(results: Path, given: pd.DataFrame) -> None:
    found = rows(results, "FROM evaluations WHERE purpose = 'report'")
    for row in found:
        mine = given[(given.intervention == row["intervention"]) & (given.method == row["method"])
                     & (given.role == row["role"]) & (given.task == row["task"])
                     & (given.shots == row["shots"])]
        if row["control_seed"] is not None:
            mine = mine[mine.draw == row["control_seed"]]
        mine = mine.drop_duplicates(PROMPT)
        assert (row["prompts"], row["queries"]) == (len(mine), mine["query"].nunique())
        assert row["accuracy"] == near(mine.correct.mean())
        assert row["copying_error"] == near(mine.copied.mean())
        assert ends(row, "accuracy") == near(share_interval(clusters(mine)))
        assert ends(row, "copying_error") == near(share_interval(clusters(mine, "copied")))
    assert sum(row["prompts"] for row in found) == len(given.drop_duplicates(
        [*PROMPT, "intervention", "method", "role", "draw"]))


def test_comparisons(results: Path, given: pd.DataFrame) -> None:
    base = given[given.role == "baseline"]
    found = rows(results, "FROM comparisons")
    for row in found:
        mine = given[(given.intervention == row["intervention"]) & (given.method == row["method"])
                     & (given.role == row["role"])]
        if row["control_seed"] is not None:
            mine = mine[mine.draw == row["control_seed"]]
        mine = mine.drop_duplicates(PROMPT)
        mine = mine[(mine.task == row["task"]) & (mine.shots == row["shots"])]
        others = base
        if row["reference"] == "random":
            others = matched(given, row["method"])
        elif row["reference"] == "random_search":
            others = given[given.method == "random_search"]
        both = beside(mine, others)
        copies = both.assign(correct=both.copied, other_correct=both.other_copied)
        assert (row["n"], row["prompts"], row["queries"]) == (
            len(both), len(mine), mine["query"].nunique())
        assert (row["accuracy"], row["reference_accuracy"]) == near(
            (both.correct.mean(), both.other_correct.mean()))
        assert (row["copying_error"], row["reference_copying_error"]) == near(
            (both.copied.mean(), both.other_copied.mean()))
        assert row["difference"] == near(row["accuracy"] - row["reference_accuracy"])
        assert row["only_this_right"] == (both.correct & ~both.other_correct).sum()
        assert row["only_reference_right"] == (~both.correct & both.other_correct).sum()
        interval = difference_interval(pairs(both))
        if row["reference"] == "baseline":
            p, copying_p = flip_p(pairs(both)), flip_p(pairs(copies))
        else:
            assert row["sets"] == 3
            interval = tuple(np.clip(drawn(difference(both), interval, of_sets(both)), -1, 1))
            p = p_against_draws(pairs(both), sets=of_sets(both))
            copying_p = p_against_draws(pairs(copies), sets=of_sets(copies))
        assert ends(row, "difference") == near(interval)
        assert (row["p_value"], row["copying_p_value"]) == near((p, copying_p))
    for reference in ("baseline", *RANDOM):
        for kind in ("", "copying_"):
            family = {(r["intervention"], r["task"], r["shots"]): r[f"{kind}p_value"]
                      for r in found if r["reference"] == reference and r["role"] == "chosen"}
            q = dict(zip(family, false_discovery_control(list(family.values())), strict=True))
            for row in (r for r in found if r["reference"] == reference):
                key = row["intervention"], row["task"], row["shots"]
                expected = near(q[key]) if row["role"] == "chosen" else None
                assert row[f"{kind}q_value"] == expected


def test_leaderboard(results: Path, given: pd.DataFrame) -> None:
    base = given[given.role == "baseline"]
    found = rows(results, "FROM leaderboard")
    assert {row["method"] for row in found} == set(given.method)
    for row in found:
        method = row["method"]
        mine = given[given.method == method].drop_duplicates([*PROMPT, "intervention", "draw"])
        if row["matched_to"]:
            mine = matched(given, row["matched_to"].split(", ")[0])
        of_tasks = [task for _, task in mine.groupby("task")]
        assert (row["tasks"], row["n"]) == (len(of_tasks), len(mine))
        assert (row["prompts"], row["queries"]) == (
            len(mine.drop_duplicates(PROMPT)), len(mine.drop_duplicates(["task", "query"])))
        assert row["missing_cells"] == 0
        for name, column in (("accuracy", "correct"), ("copying_error", "copied")):
            value = np.mean([task[column].mean() for task in of_tasks])
            interval = share_interval(*(clusters(task, column) for task in of_tasks))
            if method in RANDOM:
                sets = mine.groupby(["draw", "task"])[column].mean().groupby("draw").mean()
                interval = tuple(np.clip(drawn(float(value), interval, list(sets)), 0, 1))
            assert row[name] == near(value)
            assert ends(row, name) == near(interval)
        if method == "none":
            assert row["difference"] is row["p_value"] is row["tasks_better"] is None
            continue
        check_difference(row, beside(mine, base), mine, base)
        if method in RANDOM:
            assert row["difference_to_random"] is row["difference_to_random_search"] is None
            continue
        others = {"random": matched(given, method),
                  "random_search": given[given.method == "random_search"]}
        for reference, (rank, number) in {
            "random": ("random", "random_sets"),
            "random_search": ("random_search", "random_searches"),
        }.items():
            both = beside(mine, others[reference])
            sets = of_sets(both)
            name = f"difference_to_{reference}"
            assert row[name] == near(difference(both))
            assert ends(row, name) == near(np.clip(drawn(
                difference(both), difference_interval(*tasks(both)), sets), -1, 1))
            place = 1 + sum(value <= 1e-12 for value in sets)
            assert (row[number], row[f"{rank}_rank"]) == (len(sets), place) and len(sets) == 3
            assert row[f"{rank}_p"] == near(place / 4)


def check_difference(row: dict[str, Any], both: pd.DataFrame, mine: pd.DataFrame,
                     base: pd.DataFrame) -> None:
    """The difference of a line of the leaderboard to the baseline."""
    interval, value = difference_interval(*tasks(both)), difference(both)
    of_tasks = np.array([difference(task) for _, task in both.groupby("task")])
    assert row["difference"] == near(value)
    assert (row["tasks_better"], row["tasks_worse"]) == (
        (of_tasks > 0).sum(), (of_tasks < 0).sum())
    assert row["task_sd"] == near(of_tasks.std(ddof=1))
    if row["method"] in RANDOM:
        sets = [difference(beside(one, base)) for _, one in mine.groupby("draw")]
        assert ends(row, "difference") == near(np.clip(drawn(value, interval, sets), -1, 1))
        assert row["p_value"] == near(p_against_draws(*tasks(both), sets=sets))
        assert row["difference_new_tasks_low"] is None
        return
    assert ends(row, "difference") == near(interval)
    assert row["p_value"] == near(flip_p(*tasks(both)))
    half = student.ppf(0.975, len(of_tasks) - 1) * of_tasks.std(ddof=1) / np.sqrt(len(of_tasks))
    assert ends(row, "difference_new_tasks") == near(np.clip((value - half, value + half), -1, 1))


def test_copying(results: Path, given: pd.DataFrame) -> None:
    for row in rows(results, "FROM copying"):
        mine = given[(given.method == row["method"]) & (given.task == row["task"])
                     & (given.shots == row["shots"])].drop_duplicates(
                         [*PROMPT, "intervention", "draw"])
        if row["matched_to"]:
            sets = matched(given, row["matched_to"].split(", ")[0])
            mine = mine[mine.intervention.isin(sets.intervention)]
        wrong = mine[~mine.correct]
        assert (row["n"], row["prompts"], row["queries"]) == (
            len(mine), len(mine.drop_duplicates(PROMPT)), mine["query"].nunique())
        assert (row["accuracy"], row["copying_error"]) == near(
            (mine.correct.mean(), mine.copied.mean()))
        assert row["copy_share"] == (near(wrong.copied.mean()) if len(wrong) else None)
        gold = mine.gold.value_counts(normalize=True)
        chance = sum(
            sum(gold.get(answer, 0) for answer in set(line.answers) - {line.gold})
            / (1 - gold[line.gold])
            for line in wrong[wrong.error.isna()].itertuples() if len(line.answers))
        assert row["chance"] == near(chance / len(mine))
        copies = mine[mine.copied]
        last = (copies.copied_position == copies.answers.map(len) - 1).mean()
        assert row["copied_last_share"] == (near(last) if len(copies) else None)
