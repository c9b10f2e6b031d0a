"""The views of the importance study, against the functions that the study itself uses, and scipy.

On rows of a run of a reference model, and on rows whose answers are known.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results_folder import RUN, Folder
from scipy import stats

from prunelib.components import Component
from prunelib.heads import ranking
from prunelib.heads.induction import retention
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.results.query import open_results, query
from prunelib.scoring.statistics import paired_bootstrap, wilson

Array = Any
Key = tuple[str, str, str | None, int | None]


def rows(place: Path | Folder, sql: str) -> list[dict[str, Any]]:
    return query(place.root if isinstance(place, Folder) else place, sql).to_pylist()


def rankings(place: Path | Folder) -> dict[Key, Array]:
    """(site, score, task, shots) → ``[layers, components]``, from the view."""
    found: dict[Key, dict[tuple[int, int], float]] = {}
    for row in rows(place, "FROM component_importance"):
        key = row["site"], row["score"], row["task"], row["shots"]
        found.setdefault(key, {})[row["layer"], row["index"]] = row["value"]
    tables = {}
    for key, cells in found.items():
        table = np.full(np.max(list(cells), axis=0) + 1, np.nan)
        for place_, value in cells.items():
            table[place_] = value
        tables[key] = table
    return tables


def add_scores(folder: Folder, values: Array, score: str, site: str = "head",
               task: str | None = "t", shots: int | None = 2) -> None:
    for (layer, index), value in np.ndenumerate(np.asarray(values, float)):
        folder.add("component_scores", {
            "model": "m", "site": site, "layer": layer, "index": index, "score": score,
            "task": task, "shots": shots, "value": float(value), "prompts": 5,
            "unit_id": f"scores-{site}",
        })  # fmt: skip


def test_a_run_has_every_score_of_every_component(studied: Path) -> None:
    found = rankings(studied)
    gradients = {f"gradient_{v}" for v in ("per_token", "gate", "signed")} | {"oracle"}
    settings = set(itertools.product(("antonyms", "country_capital", "to_upper"), (0, 2)))
    assert found.keys() == {
        *((site, score, *s) for site in ("head", "ffn") for score in gradients for s in settings),
        *(("head", score, None, None)
          for score in ("prefix_matching", "copying", "copying_own_value"))}
    assert {key[0]: table.shape for key, table in found.items()} == {
        "head": (4, 6), "ffn": (4, 1)}
    assert not any(np.isnan(table).any() for table in found.values())
    stored = rows(studied, "FROM component_scores")
    assert all(found[r["site"], r["score"], r["task"], r["shots"]][r["layer"], r["index"]]
               == r["value"] for r in stored)
    assert len(rows(studied, "FROM component_importance")) == len(stored) + 28 * len(settings)


def test_ranks_of_a_run_are_the_orders_of_removal_backwards(studied: Path) -> None:
    of_ranks: dict[Key, list[tuple[int, int]]] = {}
    for row in rows(studied, 'FROM component_importance ORDER BY "rank" DESC'):
        key = row["site"], row["score"], row["task"], row["shots"]
        of_ranks.setdefault(key, []).append((row["layer"], row["index"]))
    assert of_ranks == {key: ranking.order(table) for key, table in rankings(studied).items()}
    # Oracle scores of so few prompts have ties, whose order is a convention.
    oracle = rankings(studied)["head", "oracle", "antonyms", 2]
    assert len(np.unique(oracle)) < oracle.size and np.ptp(oracle) > 0


def test_oracle_of_a_run_is_counted_from_its_answers(studied: Path) -> None:
    answers: dict[Any, list[bool]] = {}
    for row in rows(studied, "FROM predictions WHERE split = 'search'"):
        answers.setdefault((row["ablation"], row["task"], row["shots"]), []).append(row["correct"])
    found = rankings(studied)
    seen = set()
    for (site, score, task, shots), table in found.items():
        if score != "oracle":
            continue
        for place, value in np.ndenumerate(table):
            off = Ablation.of_layer(place[0], [place[1]], "head" if site == "head" else "ffn")
            lost = np.mean(answers[BASELINE.digest, task, shots]) - np.mean(
                answers[off.digest, task, shots])
            assert value == pytest.approx(lost)
            seen.add(value)
    assert len(seen) > 5
    assert {r["prompts"] for r in rows(studied, "FROM component_importance WHERE score = 'oracle'")
            } == {8}


def test_oracle_pairs_prompts_of_the_search_split_only(folder: Folder) -> None:
    folder.ablation("base", "none", "baseline")
    for index, marks in ((0, "1100"), (1, "1011"), (2, "c0e1")):
        folder.ablation(f"h{index}", "oracle", "component", site="head", layer=1, count=1,
                        component_layers=[1], component_indices=[index], rate=None)
        folder.answers(f"h{index}", marks, split="search")
        folder.answers(f"h{index}", "0000")
    folder.ablation("off", "removal", "removal", site="head", layer=None, rate=None)
    folder.answers("off", "0000", split="search")
    folder.answers("base", "11101", split="search")  # the fifth prompt is answered by none
    folder.answers("base", "1111")
    folder.write()
    found = rows(folder, "FROM component_importance")
    assert [(r["index"], r["value"], r["rank"], r["prompts"]) for r in found] == [
        (2, 0.5, 1, 4), (0, 0.25, 2, 4), (1, 0.0, 3, 4)]
    assert {(r["run"], r["model"], r["site"], r["layer"], r["score"], r["task"], r["shots"])
            for r in found} == {(RUN, "m", "head", 1, "oracle", "t", 2)}


def agreement_of(a: Array, b: Array) -> dict[str, Any]:
    """What the view must say of two rankings, by the functions of the study."""
    true, released = ranking.rank_correlation(a, b), ranking.rank_correlation(a, b, "argsort")
    found = {"spearman": true.value, "spearman_low": true.low, "spearman_high": true.high,
             "spearman_as_released": released.value, "overlap_top": ranking.overlap(a, b)}
    return {name: None if math.isnan(value) else pytest.approx(value, abs=1e-9)
            for name, value in found.items()}


def check_agreement(place: Path | Folder) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Every line of the view against the study's functions; the lines by what they compare."""
    tables, lines = rankings(place), {}
    for row in rows(place, "FROM importance_agreement"):
        keys = [(row["site"], *(row[f"{other}{name}"] for name in ("score", "task", "shots")))
                for other in ("", "other_")]
        a, b = (tables[key] for key in keys)
        assert row["components"] == a.size
        assert {name: row[name] for name in agreement_of(a, b)} == agreement_of(a, b)
        if np.ptp(a) and np.ptp(b):
            expected = stats.spearmanr(a.ravel(), b.ravel()).statistic
            assert row["spearman"] == pytest.approx(expected)
        lines[(*keys,)] = row
    pairs = {frozenset(keys) for keys in lines}
    assert len(pairs) == len(lines)
    wanted = {frozenset((a, b)) for a, b in itertools.combinations(tables, 2)
              if a[0] == b[0] and sum(
                  x != y and (place == 1 or None not in (x, y))
                  for place, (x, y) in enumerate(zip(a, b, strict=True))) == 1}
    assert pairs == wanted
    return lines


def test_agreement_of_a_run(studied: Path) -> None:
    lines = check_agreement(studied)
    assert len(lines) == (
        2 * (4 * (2 * 3 + 3 * 1) + 6 * 6)  # tasks, shots, scores of heads and of FFNs
        + 3 + 3 * 4 * 6)  # induction scores: among themselves, with each score in each setting
    assert any(row["spearman"] != pytest.approx(row["spearman_as_released"])
               for row in lines.values() if row["spearman"] is not None)


def test_agreement_of_rankings_with_ties_without_order_and_with_few_components(
    folder: Folder,
) -> None:
    rng = np.random.default_rng(0)
    for task, shots in itertools.product("tuv", (0, 1)):
        add_scores(folder, rng.integers(0, 4, (3, 7)), "gradient_gate", task=task, shots=shots)
        add_scores(folder, rng.normal(size=(3, 1)), "gradient_gate", "ffn", task, shots)
    add_scores(folder, np.zeros((3, 7)), "gradient_signed", task="t", shots=0)
    add_scores(folder, np.arange(21).reshape(3, 7), "prefix_matching", task=None, shots=None)
    add_scores(folder, -np.arange(21).reshape(3, 7) * 2, "copying", task=None, shots=None)
    folder.write()
    lines = check_agreement(folder)
    opposite = lines[("head", "copying", None, None), ("head", "prefix_matching", None, None)]
    assert (opposite["spearman"], opposite["spearman_low"]) == pytest.approx((-1, -1))
    assert opposite["overlap_top"] == 0
    constant = [row for keys, row in lines.items() if "gradient_signed" in (keys[0][1], keys[1][1])]
    assert constant and {row["spearman"] for row in constant} == {None}
    assert {row["overlap_top"] for keys, row in lines.items() if keys[0][0] == "ffn"} == {None}


def removal(folder: Folder, ablation: str, off: int, ffns: int = 0, **changes: Any) -> None:
    if off or ffns:
        folder.ablation(ablation, "removal", "removal", layer=None, rate=None,
                        site=None if off and ffns else "head" if off else "ffn",
                        count=off + ffns, component_layers=[0] * (off + ffns),
                        component_indices=[*range(ffns), *range(off)])
    row = {"model": "m", "ablation": ablation, "order": "own", "task": "t", "shots": 2,
           "ranked_by": "t", "seed": None, "heads": off / 10, "ffns": ffns / 10,
           "heads_removed": off, "ffns_removed": ffns, "unit_id": "removal"}  # fmt: skip
    folder.add("removals", row | changes)


def test_curves_of_a_run_are_counted_from_its_answers(studied: Path) -> None:
    answers: dict[Any, dict[int, int]] = {}
    for row in rows(studied, "FROM predictions WHERE split = 'report'"):
        key = row["ablation"], row["task"], row["shots"]
        answers.setdefault(key, {})[row["example"]] = int(row["correct"])
    curves = {}
    about = ("order", "ranked_by", "control_seed", "task", "shots", "heads", "ffns")
    for row in rows(studied, "FROM removal_curves"):
        curves[tuple(row[name] for name in about)] = row
    uses = rows(studied, "SELECT * REPLACE (seed AS seed) FROM removals")
    settings = list(itertools.product(("antonyms", "country_capital", "to_upper"), (0, 2)))
    wanted = set()
    for use in uses:
        for task, shots in settings:
            if use["task"] not in (None, task) or use["shots"] not in (None, shots):
                continue
            key = use["order"], use["ranked_by"], use["seed"], task, shots
            wanted |= {(*key, use["heads"], use["ffns"]), (*key, 0.0, 0.0)}
            with_, without = (answers[digest, task, shots]
                              for digest in (BASELINE.digest, use["ablation"]))
            row = curves[(*key, use["heads"], use["ffns"])]
            assert (row["heads_removed"], row["ffns_removed"], row["n"]) == (
                use["heads_removed"], use["ffns_removed"], 8)
            right, gaps = sum(without.values()), [without[i] - with_[i] for i in range(8)]
            assert row["accuracy"] == pytest.approx(right / 8)
            assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx(wilson(right, 8))
            assert row["baseline_accuracy"] == pytest.approx(sum(with_.values()) / 8)
            assert row["difference"] == pytest.approx(np.mean(gaps))
            values, counts = np.unique(gaps, return_counts=True)
            assert (row["difference_low"], row["difference_high"]) == pytest.approx(
                paired_bootstrap(values.astype(float), counts))
    assert curves.keys() == wanted
    assert {row["difference"] for key, row in curves.items() if key[-2:] == (0, 0)} == {0.0}
    assert len({row["difference"] for row in curves.values()}) > 5


def test_means_of_a_run_are_means_of_its_curves(studied: Path) -> None:
    curves = rows(studied, "FROM removal_curves")
    means = rows(studied, "FROM removal_means")
    assert len(means) == 2 * (5 * (1 + 2 + 2) + 4)
    for row in means:
        key = [row[name] for name in ("order", "shots", "heads", "ffns")]
        of_tasks: dict[str, list[float]] = {}
        for curve in curves:
            if key == [curve[name] for name in ("order", "shots", "heads", "ffns")]:
                of_tasks.setdefault(curve["task"], []).append(curve["accuracy"])
        assert row["tasks"] == len(of_tasks) == 3 and row["n"] == 24
        assert row["accuracy"] == pytest.approx(np.mean([np.mean(v) for v in of_tasks.values()]))
        assert row["difference"] == pytest.approx(row["accuracy"] - row["baseline_accuracy"])
        assert row["accuracy_low"] <= row["accuracy"] + 1e-9
        assert row["accuracy_high"] >= row["accuracy"] - 1e-9


def test_curves_and_means_of_known_answers(folder: Folder) -> None:
    folder.ablation("base", "none", "baseline")
    folder.answers("base", "1110")
    folder.answers("base", "1111", task="u")
    folder.answers("base", "0000", repeat=1)
    folder.answers("base", "0000", split="search")
    removal(folder, "h3", 3)
    folder.answers("h3", "1000")
    folder.answers("h3", "0000", task="u")  # asked for another order: no part of this one
    removal(folder, "both", 3, 1)
    folder.answers("both", "0001")
    for seed, marks in enumerate(("1100", "0110")):
        removal(folder, f"r{seed}", 5, order="random", task=None, shots=None, ranked_by=None,
                seed=seed)
        folder.answers(f"r{seed}", marks)
        folder.answers(f"r{seed}", "11e0", task="u")
    folder.write()
    found = {(r["order"], r["control_seed"], r["task"], r["heads"], r["ffns"]): r
             for r in rows(folder, "FROM removal_curves")}
    accuracies = {key: (r["accuracy"], r["baseline_accuracy"]) for key, r in found.items()}
    random = {("random", seed, task, share, 0.0): (accuracy if share else baseline, baseline)
              for seed in (0, 1) for task, accuracy, baseline in (("t", 0.5, 0.75), ("u", 0.5, 1.0))
              for share in (0.0, 0.5)}
    assert accuracies == random | {
        ("own", None, "t", 0.0, 0.0): (0.75, 0.75), ("own", None, "t", 0.3, 0.0): (0.25, 0.75),
        ("own", None, "t", 0.3, 0.1): (0.25, 0.75)}
    row = found["own", None, "t", 0.3, 0.1]
    assert (row["heads_removed"], row["ffns_removed"], row["ranked_by"]) == (3, 1, "t")
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(
        paired_bootstrap([-1, 1], [3, 1]))
    (mean,) = rows(folder, "FROM removal_means WHERE \"order\" = 'random' AND heads = 0.5")
    assert (mean["tasks"], mean["n"], mean["accuracy"], mean["difference"]) == (2, 8, 0.5, -0.375)
    # Seeds are averaged prompt by prompt, and prompts drawn within their task.
    assert (mean["accuracy_low"], mean["accuracy_high"]) == pytest.approx(paired_bootstrap(
        [0.0, 0.5, 1.0, 0.0, 1.0], [1, 2, 1, 2, 2], strata=["t", "t", "t", "u", "u"]))


def test_retention_of_a_run(studied: Path) -> None:
    tables, seen = rankings(studied), 0
    found = {tuple(row[name] for name in
                   ("score", "order", "ranked_by", "control_seed", "task", "shots", "heads")): row
             for row in rows(studied, "FROM retention")}
    capacities = {name: tables["head", name, None, None]
                  for name in ("prefix_matching", "copying", "copying_own_value")}
    for (score, order, _, _, task, shots, share), row in found.items():
        if order == "own":
            importance = tables["head", "gradient_gate", task, shots]
        elif order == "aggregate":
            importance = ranking.aggregate([
                table for (site, name, _, k), table in tables.items()
                if (site, name, k) == ("head", "gradient_gate", shots)])
        else:
            continue
        left = retention(capacities[score], importance.argsort(axis=None, kind="stable"))
        assert row["heads_removed"] == int(share * 24)
        assert row["retained"] == pytest.approx(left[row["heads_removed"]])
        seen += 1
    assert seen == 3 * 3 * (6 + 2)  # scores; none, 20% and 50%; own and aggregate
    assert {key[1] for key in found} == {"own", "aggregate", "closest", "farthest", "random"}
    assert len(found) == 3 * 3 * (6 * 3 + 2 + 2)


def test_retention_of_known_scores(folder: Folder) -> None:
    folder.ablation("base", "none", "baseline")
    add_scores(folder, [[0.1, 0.2, 0.3, 0.4]], "copying", task=None, shots=None)
    add_scores(folder, np.zeros((1, 4)), "prefix_matching", task=None, shots=None)
    add_scores(folder, [[9, 9, 9, 9]], "gradient_gate")
    removal(folder, "h1", 1)
    removal(folder, "h3", 3)
    removal(folder, "both", 3, 1)
    removal(folder, "f1", 0, 1)
    removal(folder, "base", 0, heads=0.05)  # so few that none is removed
    folder.write()
    found = rows(folder, "SELECT score, heads, retained FROM retention ORDER BY ALL")
    assert [tuple(r.values()) for r in found] == [
        ("copying", 0.0, 100.0), ("copying", 0.05, 100.0), ("copying", 0.1, pytest.approx(90.0)),
        ("copying", 0.3, pytest.approx(40.0)),
        *(("prefix_matching", share, None) for share in (0.0, 0.05, 0.1, 0.3))]


def test_switches_are_told_from_the_start(studied: Path) -> None:
    costs = {r["stage"]: r for r in rows(studied, "FROM costs")}
    assert (costs["attribute"]["starts"], costs["attribute"]["switches"]) == (0, 0)
    evaluate = costs["evaluate"]
    assert evaluate["starts"] == 1
    used = open_results(studied).sql(
        "SELECT count(*) FROM (SELECT DISTINCT split, ablation FROM predictions)").fetchall()[0][0]
    # One per ablation and pass: its tasks follow on each other; the first one is the start's.
    assert evaluate["switches"] == used - 1
    assert 0 < evaluate["seconds_per_switch"] < 1 and evaluate["seconds_per_start"] > 0
    parts = (evaluate["units"] * evaluate["seconds_per_unit"] + evaluate["seconds_per_start"]
             + evaluate["switches"] * evaluate["seconds_per_switch"])
    assert parts == pytest.approx(evaluate["seconds"])


def test_components_of_a_removal_are_the_least_important(studied: Path) -> None:
    """The view's ranks and the stage's removals name the same heads."""
    importance = rankings(studied)["head", "gradient_gate", "to_upper", 2]
    off = Ablation.of(Component(layer, "head", index)
                      for layer, index in ranking.removed(ranking.order(importance), 0.5))
    digests = rows(studied, "SELECT ablation FROM removals WHERE \"order\" = 'own' AND ffns = 0 "
                            "AND heads = 0.5 AND task = 'to_upper' AND shots = 2")
    assert digests == [{"ablation": off.digest}]
