"""The view lm_eval, on rows with known answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from recomputed import difference_interval
from results_folder import Folder, rows
from scipy.stats import t as student

IG = "integrated_gradients"


def scores(folder: Folder, ablation: str, values: list[float | None], metric: str = "acc",
           **changes: Any) -> None:
    """Values of the examples of a metric; ``None`` is an error."""
    for example, value in enumerate(values):
        row = {
            "model": "m", "engine": "transformers", "intervention": ablation, "task": "quiz",
            "task_digest": "d", "harness": "1", "request_type": "multiple_choice", "shots": 0,
            "seed": 1234, "chat": False, "multiturn": False, "system": None, "example": example,
            "requests": f"q{example}", "target": "0", "responses": "[]", "metric": metric,
            "filter": "none", "aggregation": "mean", "value": value, "parts": None, "error": None,
            "unit_id": f"lm-{ablation}",
        }  # fmt: skip
        if value is None:
            row |= {"metric": None, "filter": None, "aggregation": None, "error": "too long"}
        folder.add("lm_eval_scores", row | changes)


@pytest.fixture
def labelled(folder: Folder) -> Folder:
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", IG, "chosen")
    folder.intervention("ig", IG, "grid", proxy="quiz")
    folder.intervention("r0", "random", "control", seed=0)
    folder.intervention("r1", "random", "control", seed=1)
    return folder


def test_marks_are_paired(labelled: Folder) -> None:
    marks = {"base": [1, 1, 0, 0, None], "ig": [1, 0, 0, 0, None], "r0": [1, 1, 1, 0, None],
             "r1": [1, 1, 0, 0, None]}
    for ablation, values in marks.items():
        scores(labelled, ablation, values)  # type: ignore[arg-type]
    scores(labelled, "ig", marks["ig"], unit_id="again")  # type: ignore[arg-type]
    labelled.write()
    base, ig, control = rows(labelled, "FROM lm_eval")
    assert (base["role"], base["score"], base["difference"], base["difference_low"]) == (
        "baseline", 0.5, 0.0, 0.0)
    assert (ig["examples"], ig["errors"], ig["baseline_score"], ig["score"]) == (4, 1, 0.5, 0.25)
    assert (ig["difference_low"], ig["difference_high"]) == pytest.approx(
        difference_interval([[(1, 1)], [(0, 1)], [(0, 0)], [(0, 0)]]))
    assert (control["matched_to"], control["examples"], control["difference"]) == (IG, 4, 0.125)


def test_other_values_have_students_t_over_texts(labelled: Folder) -> None:
    base, ig = [0.1, 0.4, 0.9, 0.2], [0.3, 0.1, 0.8, 0.9]
    for ablation, values in {"base": base, "ig": ig}.items():
        scores(labelled, ablation, values, "f1")  # type: ignore[arg-type]
        # The same text once more: no new evidence.
        scores(labelled, ablation, values[:1], "f1", example=9)  # type: ignore[arg-type]
    labelled.write()
    found = rows(labelled, "FROM lm_eval")[1]
    assert found["examples"] == 5
    gaps = np.array(ig) - np.array(base)
    assert found["difference"] == pytest.approx((gaps.sum() + gaps[0]) / 5)
    half = student.ppf(0.975, 3) * gaps.std(ddof=1) / 2
    assert (found["difference_low"], found["difference_high"]) == pytest.approx(
        (gaps.mean() - half, gaps.mean() + half))


def test_what_is_no_mean_is_as_the_harness_has_it(labelled: Folder) -> None:
    for ablation, whole in {"base": 40.0, "ig": 44.0}.items():
        scores(labelled, ablation, [0.0, 0.0], "ppl", aggregation="weighted_perplexity",
               value=None, parts="[-3.0, 2]")
        scores(labelled, ablation, [whole], "ppl", aggregation="weighted_perplexity",
               example=None, requests=None, target=None, responses=None)
    scores(labelled, "r0", [None, None])
    labelled.write()
    _, ig, control = rows(labelled, "FROM lm_eval")
    assert (ig["baseline_score"], ig["score"], ig["difference"], ig["examples"]) == (40, 44, 4, 2)
    assert ig["difference_low"] is None
    assert (control["metric"], control["examples"], control["errors"]) == (None, 0, 2)
