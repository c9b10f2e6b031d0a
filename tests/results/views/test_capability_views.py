"""The view capability, on rows with known answers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from recomputed import difference_interval
from results_folder import Folder, rows
from scipy.stats import t as student

IG, BOTTOM = "integrated_gradients", "bottom"


def likelihoods(folder: Folder, ablation: str, nlls: list[float], **changes: Any) -> None:
    for text, nll in enumerate(nlls):
        row = {"model": "m", "intervention": ablation, "source": "prose", "text": text, "nll": nll,
               "tokens": 10 * (text + 1), "unknown": 0, "characters": 50,
               "unit_id": f"texts-{ablation}"}  # fmt: skip
        folder.add("likelihoods", row | changes)


def test_capability(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", IG, "chosen", only_task="t")
    folder.intervention("ig", IG, "grid", proxy="quiz")
    folder.intervention("r0", "random", "control", seed=0)
    folder.intervention("r1", "random", "control", seed=1)
    nlls = {"base": [10.0, 30.0, 60.0], "ig": [12.0, 30.0, 90.0],
            "r0": [10.0, 30.0, 66.0], "r1": [10.0, 30.0, 54.0]}
    marks = {"base": "1100", "ig": "1000", "r0": "1110", "r1": "1100"}
    for ablation in nlls:
        likelihoods(folder, ablation, nlls[ablation])
        folder.answers(ablation, marks[ablation], task="quiz", purpose="capability")
        folder.answers(ablation, "1010")
    likelihoods(folder, "ig", nlls["ig"], unit_id="the-same-again")
    folder.write()
    base, ig, control = rows(folder, "FROM capability")
    assert (base["role"], base["perplexity_ratio"], base["difference"]) == ("baseline", 1.0, 0.0)
    assert (ig["source"], ig["texts"], ig["questions"]) == ("prose", 3, 4)
    assert ig["baseline_perplexity"] == pytest.approx(math.exp(100 / 60))
    assert ig["perplexity"] == pytest.approx(math.exp(132 / 60))
    assert ig["perplexity_ratio"] == pytest.approx(math.exp(32 / 60))
    # The variance of a ratio of sums is that of its residuals.
    gaps, tokens = np.array([2.0, 0.0, 30.0]), np.array([10, 20, 30])
    residuals = gaps - gaps.sum() / tokens.sum() * tokens
    half = student.ppf(0.975, 2) * np.sqrt((residuals**2).sum() * 3 / 2) / tokens.sum()
    assert (ig["perplexity_ratio_low"], ig["perplexity_ratio_high"]) == pytest.approx(
        (math.exp(32 / 60 - half), math.exp(32 / 60 + half)))
    assert (ig["baseline_accuracy"], ig["accuracy"], ig["difference"]) == (0.5, 0.25, -0.25)
    assert (ig["difference_low"], ig["difference_high"]) == pytest.approx(
        difference_interval([[(1, 1)], [(0, 1)], [(0, 0)], [(0, 0)]]))
    assert control["perplexity_ratio"] == pytest.approx(1.0)
    assert (control["questions"], control["difference"]) == (4, 0.125)
    # Questions on capability count nowhere else.
    assert {r["task"] for r in rows(folder, "FROM comparisons")} == {"t"}
    assert {r["tasks"] for r in rows(folder, "FROM leaderboard")} == {1}
    assert rows(folder, "FROM grid") == []


def test_capability_of_random_controls_is_told_apart_by_choice(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", IG, "chosen", only_task="t")
    folder.intervention("ig", IG, "chosen", only_task="u")
    folder.intervention("low", BOTTOM, "chosen", layer=0)
    for task in ("t", "u"):
        folder.intervention("r1", "random", "control", seed=0, only_task=task)
    folder.intervention("r0", "random", "control", seed=0, layer=0)
    nlls = {"base": 30.0, "ig": 30.0, "low": 60.0, "r1": 33.0, "r0": 36.0}
    for ablation, nll in nlls.items():
        likelihoods(folder, ablation, [nll])
        folder.answers(ablation, "10" if ablation == "r1" else "11", task="quiz",
                       purpose="capability")
    folder.write()
    found = rows(folder, "FROM capability WHERE method = 'random'")
    assert [(r["matched_to"], r["questions"], r["accuracy"]) for r in found] == [
        (BOTTOM, 2, 1.0), (IG, 2, 0.5)]
    assert [r["perplexity_ratio"] for r in found] == pytest.approx(
        [math.exp(0.6), math.exp(0.3)])


def test_capability_of_texts_alone(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", IG, "chosen")
    for ablation in ("base", "ig"):
        likelihoods(folder, ablation, [10.0, 20.0])
    folder.write()
    ig = rows(folder, "FROM capability")[1]
    assert ig["perplexity_ratio"] == ig["perplexity_ratio_low"] == 1.0
    assert ig["questions"] is None and ig["difference"] is None
