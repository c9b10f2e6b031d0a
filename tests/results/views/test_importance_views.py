"""The views on importance, against the functions that the study itself uses, and scipy.

On rows of a run of a reference model, and on rows whose answers are known.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from component_scores import Array, Key, add_scores, rankings
from results_folder import RUN, Folder, rows
from scipy import stats

from prunelib.components import Component
from prunelib.heads import ranking
from prunelib.interventions.ablation import BASELINE, Ablation


def test_a_run_has_every_score_of_every_component(studied: Path) -> None:
    found = rankings(studied)
    gradients = {f"gradient_{v}" for v in ("per_token", "gate", "signed")} | {"oracle"}
    tasks = ("antonyms_reference", "country_capital_reference", "to_upper")
    settings = set(itertools.product(tasks, (0, 2)))
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
    oracle = rankings(studied)["head", "oracle", "antonyms_reference", 2]
    assert len(np.unique(oracle)) < oracle.size and np.ptp(oracle) > 0


def test_oracle_of_a_run_is_counted_from_its_answers(studied: Path) -> None:
    answers: dict[Any, list[bool]] = {}
    for row in rows(studied, "FROM predictions WHERE purpose = 'importance'"):
        key = row["intervention"], row["task"], row["shots"]
        answers.setdefault(key, []).append(row["correct"])
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
    for r in rows(studied, "FROM component_importance WHERE score = 'oracle'"):
        assert r["prompts"] == len(answers[BASELINE.digest, r["task"], r["shots"]])


def test_oracle_pairs_prompts_of_the_search_split_only(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    for index, marks in ((0, "1100"), (1, "1011"), (2, "c0e1")):
        folder.intervention(f"h{index}", "oracle", "component", [Component(1, "head", index)],
                            site="head", layer=1, count=1, rate=None)
        folder.answers(f"h{index}", marks, purpose="importance")
        folder.answers(f"h{index}", "0000")
    folder.intervention("off", "removal", "removal", site="head", layer=None, rate=None)
    folder.answers("off", "0000", purpose="importance")
    folder.answers("base", "11101", purpose="importance")  # the fifth prompt is answered by none
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
