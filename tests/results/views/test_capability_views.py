"""The views scorers, seeds, transfer and capability, on rows with known answers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from results_folder import RUN, Folder

from prunelib.results.query import query
from prunelib.scoring.statistics import paired_bootstrap

BOTTOM = "bottom"
IG = "integrated_gradients"


def rows(folder: Folder, sql: str) -> list[dict[str, Any]]:
    return query(folder.root, sql).to_pylist()


def likelihoods(folder: Folder, ablation: str, nlls: list[float], **changes: Any) -> None:
    for text, nll in enumerate(nlls):
        row = {"model": "m", "ablation": ablation, "source": "prose", "text": text, "nll": nll,
               "tokens": 10 * (text + 1), "unknown": 0, "characters": 50,
               "unit_id": f"texts-{ablation}"}  # fmt: skip
        folder.add("likelihoods", row | changes)


def test_scorers(folder: Folder) -> None:
    folder.ablation("base", "none", "baseline")
    folder.ablation("ig", IG, "chosen")
    folder.ablation("low", BOTTOM, "chosen", layer=0, rate=0.4)
    folder.ablation("r0", "random", "control", seed=0)
    folder.ablation("r1", "random", "control", seed=0, layer=0, rate=0.4)
    folder.ablation("down", "down", "chosen", site="mlp_out")
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
        paired_bootstrap([0, 1], [2, 2]))
    assert ig["difference_to_random"] == 0.25
    assert (ig["units"], ig["seconds"]) == (2, 7.0)
    assert (low["method"], low["recall"], low["difference"]) == (BOTTOM, 0.5, -0.25)
    assert low["difference_to_random"] == -0.25  # to its own, in another layer
    # Dimensions of the stream are no hidden units, and no random ones of them were switched off.
    assert (down["recall"], down["difference_to_random"]) == (None, None)
    assert (low["units"], low["seconds"]) == (2, None)  # nobody did a-3 yet


def test_seeds(folder: Folder) -> None:
    folder.ablation("base", "none", "baseline")
    folder.answers("base", "1000")
    folder.answers("base", "1111", task="u")
    for seed, marks in enumerate(("1100", "1110", "1111")):
        folder.ablation(f"ig{seed}", IG, "chosen", seed=seed)
        folder.answers(f"ig{seed}", marks)
    folder.ablation("low", BOTTOM, "chosen", only_task="u")
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


def test_planted_components_of_older_files_have_no_site(folder: Folder) -> None:
    folder.add("planted", {"model": "m", "site": None, "layer": 1, "index": 1, "unit_id": "p"})
    folder.add("attributions", {
        "model": "m", "method": IG, "objective": "copy_shift", "proxy": "t", "shots": 3,
        "format": None, "seed": 0, "site": "mixer_in", "layer": 1, "index": 1, "score": 1.0,
        "rank": 1, "prompts": 3, "nodes": 8, "error_estimate": 0.01, "completeness_error": 0.2,
        "unit_id": "scores",
    })  # fmt: skip
    folder.write()
    (row,) = rows(folder, "FROM recall")
    assert (row["planted"], row["found"]) == (1, 1)


def test_seeds_of_random_controls_are_told_apart_by_choice(folder: Folder) -> None:
    folder.ablation("base", "none", "baseline")
    folder.answers("base", "0000")
    for method, layer, marks in ((IG, 1, ("0000", "0000")), (BOTTOM, 0, ("1000", "1110"))):
        folder.ablation(f"of-{layer}", method, "chosen", layer=layer)
        folder.answers(f"of-{layer}", "1111")
        for seed in (0, 1):
            folder.ablation(f"r{layer}{seed}", "random", "control", layer=layer, seed=seed)
            folder.answers(f"r{layer}{seed}", marks[seed])
    folder.write()
    found = rows(folder, "FROM seeds WHERE method = 'random'")
    assert [(r["matched_to"], r["seeds"], r["accuracy"]) for r in found] == [
        (BOTTOM, 2, 0.5), (IG, 2, 0.0)]
    assert found[0]["accuracy_sd"] == pytest.approx(np.std([0.25, 0.75], ddof=1))


def test_transfer(folder: Folder) -> None:
    folder.ablation("base", "none", "baseline")
    folder.ablation("one", IG, "chosen", only_task="t")
    folder.ablation("two", IG, "chosen", only_task="u", proxy="v")
    folder.ablation("all", BOTTOM, "chosen", proxy="v")
    folder.ablation("one", IG, "grid")
    for shots in (1, 2):
        folder.answers("base", "0000", shots=shots)
        folder.answers("base", "1100", task="u", shots=shots)
        folder.answers("one", "1111", shots=shots)
        folder.answers("one", "0100", task="u", shots=shots)
        folder.answers("two", "1000", shots=shots)
        folder.answers("all", "1100", shots=shots)
    folder.answers("base", "1111", repeat=1)
    folder.answers("one", "1111", split="search")
    folder.write()
    found = rows(folder, "FROM transfer WHERE shots = 2")
    assert [(r["method"], r["chosen_on"], r["task"], r["difference"]) for r in found] == [
        (BOTTOM, "v", "t", 0.5), (IG, "t", "t", 1.0), (IG, "t", "u", -0.25), (IG, "u", "t", 0.25),
    ]  # fmt: skip
    there = found[2]
    assert (there["n"], there["accuracy"], there["baseline_accuracy"]) == (4, 0.25, 0.5)
    assert (there["difference_low"], there["difference_high"]) == pytest.approx(
        paired_bootstrap([-1, 0], [1, 3]))
    assert len(rows(folder, "FROM transfer")) == 8
    # What was answered for transfer is no part of the reported comparison.
    board = {r["method"]: r["tasks"] for r in rows(folder, "FROM leaderboard")}
    assert board == {"none": 2, IG: 1, BOTTOM: 1}
    evaluated = rows(folder, "SELECT DISTINCT ablation, task FROM evaluations WHERE "
                             "split = 'report' AND role = 'chosen' ORDER BY ALL")
    assert [tuple(r.values()) for r in evaluated] == [("all", "t"), ("one", "t")]
    assert rows(folder, "FROM evaluations WHERE method IS NULL") == []


def test_capability(folder: Folder) -> None:
    folder.ablation("base", "none", "baseline")
    folder.ablation("ig", IG, "chosen", only_task="t")
    folder.ablation("ig", IG, "grid", proxy="quiz")
    folder.ablation("r0", "random", "control", seed=0)
    folder.ablation("r1", "random", "control", seed=1)
    nlls = {"base": [10.0, 30.0, 60.0], "ig": [12.0, 30.0, 90.0],
            "r0": [10.0, 30.0, 66.0], "r1": [10.0, 30.0, 54.0]}
    marks = {"base": "1100", "ig": "1000", "r0": "1110", "r1": "1100"}
    for ablation in nlls:
        likelihoods(folder, ablation, nlls[ablation])
        folder.answers(ablation, marks[ablation], task="quiz", split="capability")
        folder.answers(ablation, "1010")
    likelihoods(folder, "ig", nlls["ig"], unit_id="the-same-again")
    folder.write()
    base, ig, control = rows(folder, "FROM capability")
    assert (base["role"], base["perplexity_ratio"], base["difference"]) == ("baseline", 1.0, 0.0)
    assert (ig["source"], ig["texts"], ig["questions"]) == ("prose", 3, 4)
    assert ig["baseline_perplexity"] == pytest.approx(math.exp(100 / 60))
    assert ig["perplexity"] == pytest.approx(math.exp(132 / 60))
    assert ig["perplexity_ratio"] == pytest.approx(math.exp(32 / 60))
    # An independent bootstrap of the ratio of sums; 3 texts are few, so the ends are near only.
    rng = np.random.default_rng(0)
    gaps, tokens = np.array([2.0, 0.0, 30.0]), np.array([10, 20, 30])
    assert ig["perplexity_ratio_low"] < ig["perplexity_ratio"] < ig["perplexity_ratio_high"]
    drawn = rng.integers(0, 3, (4000, 3))
    spread = (gaps[drawn].sum(1) / tokens[drawn].sum(1)).std()
    width = math.log(ig["perplexity_ratio_high"] / ig["perplexity_ratio_low"])
    assert width == pytest.approx(2 * 1.96 * spread, rel=0.3)
    assert (ig["baseline_accuracy"], ig["accuracy"], ig["difference"]) == (0.5, 0.25, -0.25)
    assert (ig["difference_low"], ig["difference_high"]) == pytest.approx(
        paired_bootstrap([-1, 0], [1, 3]))
    assert control["perplexity_ratio"] == pytest.approx(1.0)
    assert (control["questions"], control["difference"]) == (4, 0.125)
    # Questions on capability count nowhere else.
    assert {r["task"] for r in rows(folder, "FROM comparisons")} == {"t"}
    assert {r["tasks"] for r in rows(folder, "FROM leaderboard")} == {1}
    assert rows(folder, "FROM grid") == []


def test_capability_of_random_controls_is_told_apart_by_choice(folder: Folder) -> None:
    folder.ablation("base", "none", "baseline")
    folder.ablation("ig", IG, "chosen", only_task="t")
    folder.ablation("ig", IG, "chosen", only_task="u")
    folder.ablation("low", BOTTOM, "chosen", layer=0)
    for task in ("t", "u"):
        folder.ablation("r1", "random", "control", seed=0, only_task=task)
    folder.ablation("r0", "random", "control", seed=0, layer=0)
    nlls = {"base": 30.0, "ig": 30.0, "low": 60.0, "r1": 33.0, "r0": 36.0}
    for ablation, nll in nlls.items():
        likelihoods(folder, ablation, [nll])
        folder.answers(ablation, "10" if ablation == "r1" else "11", task="quiz",
                       split="capability")
    folder.write()
    found = rows(folder, "FROM capability WHERE method = 'random'")
    assert [(r["matched_to"], r["questions"], r["accuracy"]) for r in found] == [
        (BOTTOM, 2, 1.0), (IG, 2, 0.5)]
    assert [r["perplexity_ratio"] for r in found] == pytest.approx(
        [math.exp(0.6), math.exp(0.3)])


def test_capability_of_texts_alone(folder: Folder) -> None:
    folder.ablation("base", "none", "baseline")
    folder.ablation("ig", IG, "chosen")
    for ablation in ("base", "ig"):
        likelihoods(folder, ablation, [10.0, 20.0])
    folder.write()
    ig = rows(folder, "FROM capability")[1]
    assert ig["perplexity_ratio"] == ig["perplexity_ratio_low"] == 1.0
    assert ig["questions"] is None and ig["difference"] is None


def test_prompts_to_choose_from_do_not_dilute_the_search(folder: Folder) -> None:
    """The untouched model also answers prompts that attribution then chooses among."""
    folder.ablation("base", "none", "baseline")
    folder.ablation("ig", IG, "grid")
    folder.ablation("ig", IG, "chosen")
    folder.answers("base", "1100", split="search")
    folder.answers("base", "00000000", split="attribute")
    folder.answers("ig", "1110", split="search")
    folder.write()
    (cell,) = rows(folder, "FROM grid")
    assert (cell["n"], cell["baseline_accuracy"], cell["difference"]) == (4, 0.5, 0.25)
    (chosen,) = rows(folder, "FROM chosen")
    assert (chosen["search_accuracy"], chosen["search_baseline_accuracy"]) == (0.75, 0.5)
