"""A run on questions with choices of their own: search, report, rows and view."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import prunelib
from prunelib.models import ModelInfo

ROWS = [{"q": f"{a}->{b}, {c}->", "options": [d.upper(), d, a][: 2 + i % 2], "label": i % 2}
        for i, (a, b, c, d) in enumerate(zip("abcdefghij", "bcdefghijk", "klmnopqrst",
                                              "lmnopqrstu", strict=True))]


@pytest.fixture(scope="module")
def answers(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own-choices")
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    recipe = prunelib.Recipe.model_validate({
        "name": "own", "models": [info.path], "engine": "transformers",
        "tasks": [{"name": "quiz", "path": str(folder), "template": "{q}{answer}",
                   "choices": "options", "scoring": "likelihood_per_character"}],
        "attribution": {"method": "weight", "proxy": "quiz", "prompts": 4, "shots": 0},
        "search": {"layers": [0], "rates": [0.5], "examples": 8, "shots": 0},
        "controls": {"random": 1},
        "evaluate": {"tasks": ["quiz"], "shots": [0], "examples": 10},
    })  # fmt: skip
    assert prunelib.run(recipe, folder / "results").complete
    return folder / "results"


def test_every_answer_is_the_choice_that_its_likelihoods_name(answers: Path) -> None:
    found = prunelib.open_results(answers).sql("select * from predictions")
    rows = found.to_arrow_table().to_pylist()
    assert {row["purpose"] for row in rows} >= {"search", "report"}
    for row in rows:
        assert row["scoring"] == "likelihood_per_character" and row["error"] is None
        scores = [value / length for value, length in zip(
            row["choice_likelihoods"], row["choice_characters"], strict=True)]
        best = scores.index(max(scores))
        assert row["prediction"] == row["choices"][best]
        assert row["correct"] == (best in row["right_choices"])
        assert row["choice_characters"] == [len(text) for text in row["choices"]]
        if row["purpose"] == "search":
            (right,) = row["right_choices"]
            wrong = max(s for i, s in enumerate(scores) if i != right)
            assert row["margin"] == pytest.approx(scores[right] - wrong)


def test_the_view_on_choices_equals_pandas(answers: Path) -> None:
    results = prunelib.open_results(answers)
    rows = results.sql("select * from predictions where repeat = 0").df()
    shown = results.sql("select * from choice_accuracy").df()
    rows["raw"] = [int(pd.Series(v).argmax()) in set(r) for v, r in zip(
        rows["choice_likelihoods"], rows["right_choices"], strict=True)]
    keys = ["purpose", "intervention"]
    truth = rows.groupby(keys)[["correct", "raw"]].mean()
    found = shown.set_index(keys)
    assert len(found) == len(truth) > 2
    for key, row in truth.iterrows():
        assert found.loc[key, "accuracy"] == pytest.approx(row["correct"])
        assert found.loc[key, "per_character_accuracy"] == pytest.approx(row["correct"])
        assert found.loc[key, "likelihood_accuracy"] == pytest.approx(row["raw"])
