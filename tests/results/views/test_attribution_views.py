"""The views on attributions: scores against scipy and sets, choices on known answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from recomputed import difference_interval
from results_folder import RUN, Folder, only, rows
from scipy.stats import spearmanr

from prunelib.search.selection import by_score

WIDTH = 60
IG, BOTTOM = "integrated_gradients", "bottom"


def add(folder: Folder, scores: Sequence[float], layer: int = 0, **changes: Any) -> None:
    """Write the scores of one layer."""
    for rank, index in enumerate(by_score(np.asarray(scores, float)), 1):
        row = {
            "model": "m", "method": "integrated_gradients", "objective": "copy_shift",
            "proxy": "vowel_counting", "shots": 3, "format": "arrow", "seed": 0,
            "site": "mlp_hidden", "layer": layer, "index": index, "score": float(scores[index]),
            "rank": rank, "prompts": 100, "nodes": 8, "error_estimate": 0.01,
            "completeness_error": 0.2, "overlap": 0.5,
        } | changes  # fmt: skip
        name = "-".join(str(v) for v in (row["method"], row["proxy"], row["prompts"], layer))
        folder.add("attributions", row | {"unit_id": name.replace("_", "-").lower()})


def test_scores_have_their_run_without_a_join(folder: Folder) -> None:
    add(folder, [0.5, 2.0, 1.0])
    add(folder, [3.0, -1.0, 0.0], layer=1, method="wanda", objective=None)
    first, second = sorted({unit for _, unit in folder.rows})
    folder.write({RUN: [first, second], "other-00000000": [first]})
    found = rows(folder, "FROM scores ORDER BY ALL")
    assert [(r["run"], r["method"], r["layer"], r["index"], r["score"], r["rank"])
            for r in found] == [
        (RUN, IG, 0, 0, 0.5, 3), (RUN, IG, 0, 1, 2.0, 1), (RUN, IG, 0, 2, 1.0, 2),
        (RUN, "wanda", 1, 0, 3.0, 1), (RUN, "wanda", 1, 1, -1.0, 3), (RUN, "wanda", 1, 2, 0.0, 2),
        ("other-00000000", IG, 0, 0, 0.5, 3), ("other-00000000", IG, 0, 1, 2.0, 1),
        ("other-00000000", IG, 0, 2, 1.0, 2)]


def test_overlap_of_two_proxies(folder: Folder) -> None:
    rng = np.random.default_rng(0)
    scores = {}
    for layer in (0, 1):
        first = rng.normal(size=WIDTH)
        first[:20] = 0.0  # idle components are equal
        scores[layer] = (first, first + rng.normal(size=WIDTH) * (layer + 0.3))
        add(folder, scores[layer][0], layer)
        add(folder, scores[layer][1], layer, proxy="list_first")
    folder.write()
    found = rows(folder, "FROM overlap ORDER BY layer, share")
    assert [(r["layer"], r["share"], r["count"]) for r in found] == [
        (layer, share, count) for layer in (0, 1)
        for share, count in ((0.01, 1), (0.05, 3), (0.1, 6))]
    for row in found:
        assert (row["run"], row["model"], row["site"]) == (RUN, "m", "mlp_hidden")
        assert (row["proxy"], row["other_proxy"]) == ("list_first", "vowel_counting")
        assert row["method"] == row["other_method"] == "integrated_gradients"
        one, other = scores[row["layer"]]
        assert row["spearman"] == pytest.approx(spearmanr(one, other).statistic)
        tops = [set(by_score(s)[: row["count"]]) for s in (one, other)]
        assert row["shared"] == len(tops[0] & tops[1])
        assert row["jaccard"] == pytest.approx(len(tops[0] & tops[1]) / len(tops[0] | tops[1]))
        assert row["shared_by_chance"] == pytest.approx(row["count"] ** 2 / WIDTH)
    assert rows(folder, "FROM agreement") == []


def test_every_pair_of_attributions_once(folder: Folder) -> None:
    level = np.arange(WIDTH, dtype=float)
    add(folder, level)
    add(folder, -level, method="random", objective=None, shots=None, prompts=0)
    add(folder, level * 2, prompts=10)
    add(folder, level, layer=1)  # has nothing to be compared with
    folder.write()
    found = {(r["method"], r["prompts"], r["other_method"], r["other_prompts"]): r["spearman"]
             for r in rows(folder, "FROM overlap WHERE share = 0.1")}
    ig = "integrated_gradients"
    assert found == {
        (ig, 10, ig, 100): pytest.approx(1.0),
        (ig, 10, "random", 0): pytest.approx(-1.0),
        (ig, 100, "random", 0): pytest.approx(-1.0),
    }


def test_constant_scores_have_no_order(folder: Folder) -> None:
    add(folder, np.zeros(WIDTH))
    add(folder, np.arange(WIDTH), proxy="list_first")
    folder.write()
    assert {r["spearman"] for r in rows(folder, "FROM overlap")} == {None}


@pytest.mark.parametrize("method", ["integrated_gradients", "ten", "a-few"])
def test_agreement_of_10_prompts_with_100(folder: Folder, method: str) -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=WIDTH)
    few = truth + rng.normal(size=WIDTH) * 0.5
    add(folder, truth)
    add(folder, few, prompts=10, method=method)
    for changes in ({"proxy": "list_first"}, {"seed": 1}, {"objective": "nll"}):
        add(folder, few, prompts=11, method=f"other-{next(iter(changes))}", **changes)
    folder.write()
    (row,) = rows(folder, "FROM agreement WHERE share = 0.05")
    assert (row["proxy"], row["objective"], row["seed"]) == ("vowel_counting", "copy_shift", 0)
    assert (row["method"], row["prompts"]) == (method, 10)
    assert (row["other_method"], row["other_prompts"]) == ("integrated_gradients", 100)
    assert row["spearman"] == pytest.approx(spearmanr(truth, few).statistic)
    assert row["shared"] == len(set(by_score(truth)[:3]) & set(by_score(few)[:3]))
    assert row["jaccard"] == pytest.approx(row["shared"] / (6 - row["shared"]))


def test_completeness(folder: Folder) -> None:
    for example, gap in enumerate([0.1, -0.2, 0.3]):
        row = {
            "model": "m", "method": "integrated_gradients", "objective": "copy_shift",
            "proxy": "vowel_counting", "seed": 0, "layer": 0,
            "example": example, "nodes": 8, "total": gap, "delta": 0.0, "gap": gap,
            "unit_id": "layer-0",
        }  # fmt: skip
        folder.add("completeness_gaps", row)
    folder.add("completeness_gaps", row | {"nodes": 4, "gap": 9.0})  # an earlier, coarser try
    for index in range(2):
        row = {
            "model": "m", "method": "integrated_gradients", "objective": "copy_shift",
            "proxy": "vowel_counting", "shots": 3, "format": "arrow", "seed": 0,
            "site": "mlp_hidden", "layer": 0, "index": index, "score": 0.5, "rank": index + 1,
            "prompts": 3, "nodes": 8, "error_estimate": 0.01, "completeness_error": 0.2,
            "overlap": 0.5,
            "unit_id": "layer-0",
        }  # fmt: skip
        folder.add("attributions", row)
    folder.write()
    row = only(folder, "FROM completeness")
    assert row == {
        "run": RUN, "model": "m", "method": "integrated_gradients", "objective": "copy_shift",
        "proxy": "vowel_counting", "seed": 0, "layer": 0, "prompts": 3, "nodes": 8,
        "error_estimate": 0.01, "gap_median": pytest.approx(0.2),
        "gap_p95": pytest.approx(0.29), "gap_max": 0.3,
    }  # fmt: skip


def test_scorers(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", IG, "chosen")
    folder.intervention("low", BOTTOM, "chosen", layer=0, rate=0.4)
    folder.intervention("r0", "random", "control", seed=0)
    folder.intervention("r1", "random", "control", seed=0, layer=0, rate=0.4)
    folder.intervention("down", "down", "chosen", site="mlp_out")
    for ablation, marks in {"base": "1000", "ig": "1110", "low": "0000", "r0": "1100",
                            "r1": "1000", "down": "1111"}.items():
        folder.answers(ablation, marks)
    for index in (0, 1):
        folder.add("planted", {"model": "m", "site": "mlp_hidden", "layer": 1, "index": index,
                               "unit_id": "planted"})
    for method, seed, site, ranks in (
        (IG, 0, "mlp_hidden", (1, 2, 3)), (IG, 1, "mlp_hidden", (1, 3, 2)),
        (BOTTOM, 0, "mlp_hidden", (3, 2, 1)), ("down", 0, "mlp_out", (1, 2, 3)),
    ):  # fmt: skip
        for index, rank in enumerate(ranks):
            folder.add("attributions", {
                "model": "m", "method": method, "objective": "copy_shift", "proxy": "t",
                "shots": 3, "format": "arrow", "seed": seed, "site": site, "layer": 1,
                "index": index, "score": float(rank if method == BOTTOM else -rank), "rank": rank,
                "prompts": 3, "nodes": 8, "error_estimate": 0.01, "completeness_error": 0.2,
                "overlap": 0.5,
                "unit_id": "scores",
            })  # fmt: skip
    for method, unit in ((IG, "a-1"), (IG, "a-2"), (BOTTOM, "a-2"), (BOTTOM, "a-3")):
        folder.add("attribution_units", {"model": "m", "method": method, "proxy": "t", "seed": 0,
                                         "used_unit": unit, "unit_id": "used"})
    folder.attempt("a-1", "failed", 0, seconds=50.0)
    folder.attempt("a-1", "done", 1, attempt=2, seconds=4.0)
    folder.attempt("a-2", "done", 2, seconds=3.0, run="an-earlier-one")
    folder.write()
    low, down, ig = rows(folder, "FROM scorers")
    assert (ig["method"], ig["layer"], ig["rate"], ig["recall"]) == (IG, 1, 0.1, 0.75)
    assert (ig["accuracy"], ig["baseline_accuracy"], ig["difference"]) == (0.75, 0.25, 0.5)
    assert (ig["difference_low"], ig["difference_high"]) == pytest.approx(
        difference_interval([[(1, 0)], [(1, 0)], [(0, 0)], [(1, 1)]]))
    assert ig["difference_to_random"] == 0.25
    assert (ig["units"], ig["seconds"]) == (2, 7.0)
    assert (low["method"], low["recall"], low["difference"]) == (BOTTOM, 0.5, -0.25)
    assert low["difference_to_random"] == -0.25  # to its own, in another layer
    # Dimensions of the stream are no neurons, and no random ones of them were switched off.
    assert (down["recall"], down["difference_to_random"]) == (None, None)
    assert (low["units"], low["seconds"]) == (2, None)  # nobody did a-3 yet


def test_seeds(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.answers("base", "1000")
    folder.answers("base", "1111", task="u")
    for seed, marks in enumerate(("1100", "1110", "1111")):
        folder.intervention(f"ig{seed}", IG, "chosen", seed=seed)
        folder.answers(f"ig{seed}", marks)
    folder.intervention("low", BOTTOM, "chosen", only_task="u")
    folder.answers("low", "1100", task="u")
    folder.answers("low", "1111")  # transfer: not its own task
    folder.write()
    low, ig = rows(folder, "FROM seeds")
    found = np.array([0.5, 0.75, 1.0])
    assert ig == {
        "run": RUN, "model": "m", "method": IG, "role": "chosen", "matched_to": None,
        "task": "t", "seeds": 3,
        "accuracy": 0.75, "accuracy_sd": pytest.approx(found.std(ddof=1)),
        "difference": 0.5, "difference_sd": pytest.approx(found.std(ddof=1)),
    }  # fmt: skip
    assert (low["task"], low["seeds"], low["difference"]) == ("u", 1, -0.5)
    assert low["accuracy_sd"] is None and low["difference_sd"] is None


def test_seeds_of_random_controls_are_told_apart_by_choice(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.answers("base", "0000")
    for method, layer, marks in ((IG, 1, ("0000", "0000")), (BOTTOM, 0, ("1000", "1110"))):
        folder.intervention(f"of-{layer}", method, "chosen", layer=layer)
        folder.answers(f"of-{layer}", "1111")
        for seed in (0, 1):
            folder.intervention(f"r{layer}{seed}", "random", "control", layer=layer, seed=seed)
            folder.answers(f"r{layer}{seed}", marks[seed])
    folder.write()
    found = rows(folder, "FROM seeds WHERE method = 'random'")
    assert [(r["matched_to"], r["seeds"], r["accuracy"]) for r in found] == [
        (BOTTOM, 2, 0.5), (IG, 2, 0.0)]
    assert found[0]["accuracy_sd"] == pytest.approx(np.std([0.25, 0.75], ddof=1))


def test_transfer(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.intervention("one", IG, "chosen", only_task="t")
    folder.intervention("two", IG, "chosen", only_task="u", proxy="v")
    folder.intervention("all", BOTTOM, "chosen", proxy="v")
    folder.intervention("one", IG, "grid")
    for shots in (1, 2):
        folder.answers("base", "0000", shots=shots)
        folder.answers("base", "1100", task="u", shots=shots)
        folder.answers("one", "1111", shots=shots)
        folder.answers("one", "0100", task="u", shots=shots)
        folder.answers("two", "1000", shots=shots)
        folder.answers("all", "1100", shots=shots)
    folder.answers("base", "1111", repeat=1)
    folder.answers("one", "1111", purpose="search")
    folder.write()
    found = rows(folder, "FROM transfer WHERE shots = 2")
    assert [(r["method"], r["chosen_on"], r["task"], r["difference"]) for r in found] == [
        (BOTTOM, "v", "t", 0.5), (IG, "t", "t", 1.0), (IG, "t", "u", -0.25), (IG, "u", "t", 0.25),
    ]  # fmt: skip
    there = found[2]
    assert (there["prompts"], there["accuracy"], there["baseline_accuracy"]) == (4, 0.25, 0.5)
    assert (there["difference_low"], there["difference_high"]) == pytest.approx(
        difference_interval([[(0, 1)], [(1, 1)], [(0, 0)], [(0, 0)]]))
    assert len(rows(folder, "FROM transfer")) == 8
    # What was answered for transfer is no part of the reported comparison.
    board = {r["method"]: r["tasks"] for r in rows(folder, "FROM leaderboard")}
    assert board == {"none": 2, IG: 1, BOTTOM: 1}
    evaluated = rows(folder, "SELECT DISTINCT intervention, task FROM evaluations WHERE "
                             "split = 'report' AND role = 'chosen' ORDER BY ALL")
    assert [tuple(r.values()) for r in evaluated] == [("all", "t"), ("one", "t")]
    assert rows(folder, "FROM evaluations WHERE method IS NULL") == []
