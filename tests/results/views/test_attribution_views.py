"""Comparisons of scores, against scipy and sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from results_folder import RUN, Folder
from scipy.stats import spearmanr

from prunelib.results.query import query
from prunelib.search.selection import by_score

WIDTH = 60


def add(folder: Folder, scores: Sequence[float], layer: int = 0, **changes: Any) -> None:
    """Write the scores of one layer."""
    for rank, index in enumerate(by_score(np.asarray(scores, float)), 1):
        row = {
            "model": "m", "method": "integrated_gradients", "objective": "copy_shift",
            "proxy": "vowel_counting", "shots": 3, "format": "arrow", "seed": 0,
            "site": "mlp_hidden", "layer": layer, "index": index, "score": float(scores[index]),
            "rank": rank, "prompts": 100, "nodes": 8, "error_estimate": 0.01,
            "completeness_error": 0.2,
        } | changes  # fmt: skip
        name = "-".join(str(v) for v in (row["method"], row["proxy"], row["prompts"], layer))
        folder.add("attributions", row | {"unit_id": name.replace("_", "-").lower()})


def rows(folder: Folder, sql: str) -> list[dict[str, Any]]:
    return query(folder.root, sql).to_pylist()


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
