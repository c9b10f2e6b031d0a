"""The views on removal, against the functions that the study itself uses.

On rows of a run of a reference model, and on rows whose answers are known.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from component_scores import add_scores, rankings
from results_folder import Folder, rows

from prunelib.components import Component
from prunelib.heads import ranking
from prunelib.heads.induction import retention
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.scoring.statistics import (
    difference_intervals,
    drawn_interval,
    pair_sums,
    share_intervals,
    share_sums,
)


def removal(folder: Folder, ablation: str, off: int, ffns: int = 0, **changes: Any) -> None:
    if off or ffns:
        folder.intervention(
            ablation, "removal", "removal",
            [Component(0, "head", i) for i in range(off)]
            + [Component(0, "ffn", i) for i in range(ffns)],
            layer=None, rate=None, count=off + ffns,
            site=None if off and ffns else "head" if off else "ffn")
    row = {"model": "m", "intervention": ablation, "order": "own", "task": "t", "shots": 2,
           "ranked_by": "t", "seed": None, "heads": off / 10, "ffns": ffns / 10,
           "heads_removed": off, "ffns_removed": ffns, "unit_id": "removal"}  # fmt: skip
    folder.add("removals", row | changes)


def test_curves_of_a_run_are_counted_from_its_answers(studied: Path) -> None:
    answers: dict[Any, dict[tuple[str, int], int]] = {}
    for row in rows(studied, "FROM predictions WHERE purpose = 'report'"):
        key = row["intervention"], row["task"], row["shots"]
        answers.setdefault(key, {})[row["query"], row["example"]] = int(row["correct"])
    curves = {}
    about = ("order", "ranked_by", "control_seed", "task", "shots", "heads", "ffns")
    for row in rows(studied, "FROM removal_curves"):
        curves[tuple(row[name] for name in about)] = row
    uses = rows(studied, "SELECT * REPLACE (seed AS seed) FROM removals")
    tasks = ("antonyms_reference", "country_capital_reference", "to_upper")
    settings = list(itertools.product(tasks, (0, 2)))
    wanted = set()
    for use in uses:
        for task, shots in settings:
            if use["task"] not in (None, task) or use["shots"] not in (None, shots):
                continue
            key = use["order"], use["ranked_by"], use["seed"], task, shots
            wanted |= {(*key, use["heads"], use["ffns"]), (*key, 0.0, 0.0)}
            with_, without = (answers[digest, task, shots]
                              for digest in (BASELINE.digest, use["intervention"]))
            row = curves[(*key, use["heads"], use["ffns"])]
            queries = sorted({query for query, _ in without})
            assert (row["heads_removed"], row["ffns_removed"], row["prompts"],
                    row["queries"]) == (use["heads_removed"], use["ffns_removed"], 8,
                                        len(queries))
            assert row["accuracy"] == pytest.approx(sum(without.values()) / 8)
            assert row["baseline_accuracy"] == pytest.approx(sum(with_.values()) / 8)
            assert row["difference"] == pytest.approx(
                np.mean([without[i] - with_[i] for i in without]))
            ends = [(row[f"{name}_low"], row[f"{name}_high"]) for name in (
                "accuracy", "difference")]
            if use["order"] == "random":
                assert ends == [(None, None)] * 2
                continue
            n, right, gained, lost = (
                [sum(f(i) for i in without if i[0] == query) for query in queries]
                for f in (lambda i: 1, lambda i, w=without: w[i],
                          lambda i, w=without, b=with_: w[i] > b[i],
                          lambda i, w=without, b=with_: w[i] < b[i]))
            expected = [share_intervals([share_sums(n, right)], [0]),
                        difference_intervals([pair_sums(n, gained, lost)], [0])]
            assert ends[0] == pytest.approx([end[0] for end in expected[0]])
            # Where nothing is removed, the difference is no estimate.
            off = row["heads_removed"] + row["ffns_removed"]
            assert ends[1] == pytest.approx([end[0] for end in expected[1]] if off else (0, 0))
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
        assert row["tasks"] == len(of_tasks) == 3 and row["prompts"] == 24
        assert row["accuracy"] == pytest.approx(np.mean([np.mean(v) for v in of_tasks.values()]))
        assert row["difference"] == pytest.approx(row["accuracy"] - row["baseline_accuracy"])
        if row["accuracy_low"] is not None:
            assert row["accuracy_low"] <= row["accuracy"] + 1e-9
            assert row["accuracy_high"] >= row["accuracy"] - 1e-9
        assert (row["accuracy_low"] is None) == (row["order"] == "random" and row["orders"] == 1)


def test_curves_and_means_of_known_answers(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.answers("base", "1110")
    folder.answers("base", "1111", task="u")
    folder.answers("base", "0000", repeat=1)
    folder.answers("base", "0000", purpose="importance")
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
        [float(end[0]) for end in difference_intervals(
            [pair_sums([1] * 4, [0, 0, 0, 1], [1, 1, 1, 0])], [0])])
    (mean,) = rows(folder, "FROM removal_means WHERE \"order\" = 'random' AND heads = 0.5")
    assert (mean["tasks"], mean["prompts"], mean["queries"], mean["accuracy"],
            mean["difference"], mean["orders"]) == (2, 8, 8, 0.5, -0.375, 2)
    # The orders are draws, of which both happen to do equally well.
    interval = drawn_interval([0.5], share_intervals(
        [share_sums([2] * 4, [1, 2, 1, 0]), share_sums([2] * 4, [2, 2, 0, 0])], [0, 0]),
        [0.0], [2])
    assert (mean["accuracy_low"], mean["accuracy_high"]) == pytest.approx(
        [float(end[0]) for end in interval])


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
    folder.intervention("base", "none", "baseline")
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


def test_components_of_a_removal_are_the_least_important(studied: Path) -> None:
    """The view's ranks and the stage's removals name the same heads."""
    importance = rankings(studied)["head", "gradient_gate", "to_upper", 2]
    off = Ablation.of(Component(layer, "head", index)
                      for layer, index in ranking.removed(ranking.order(importance), 0.5))
    digests = rows(studied, "SELECT intervention FROM removals WHERE \"order\" = 'own' "
                            "AND ffns = 0 AND heads = 0.5 AND task = 'to_upper' AND shots = 2")
    assert digests == [{"intervention": off.digest}]
