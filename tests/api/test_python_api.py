"""Calls from Python: the numbers of a run, bit for bit, and what they refuse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import prunelib
from prunelib.components import Component
from prunelib.errors import UserError
from prunelib.interventions.ablation import Ablation
from prunelib.models import Loaded, load
from prunelib.results.query import query
from prunelib.results.stored_interventions import find_intervention
from prunelib.tasks import ICL18

ATTRIBUTED = {"shots": 2, "prompts": 6, "block": 3, "max_nodes": 17}
TASKS, SHOTS, EXAMPLES = ["vowel_counting", "to_upper"], [1, 2], 12


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the recipe that the calls below are."""
    folder = tmp_path_factory.mktemp("api") / "results"
    assert prunelib.run(prunelib.Recipe.model_validate({
        "name": "same", "models": ["reference/llama-copier"], "engine": "transformers",
        "attribution": {"proxy": "vowel_counting", **ATTRIBUTED},
        "search": {"layers": [2], "rates": [0.05], "examples": 8, "nothing": "excluded"},
        "controls": {"random": 0, "random_searches": 0},
        "evaluate": {"tasks": TASKS, "shots": SHOTS, "examples": EXAMPLES},
        "importance": {"prompts": 4, "oracle": [], "sequences": 0,
                       "removal": {"heads": "gradient_gate", "ffns": "none"}},
    }), folder).complete
    return folder


@pytest.fixture(scope="module")
def model() -> prunelib.Model:
    return prunelib.load("reference/llama-copier")


@pytest.fixture(scope="module")
def scores(model: prunelib.Model) -> prunelib.Scores:
    return model.attribute("vowel_counting", layers=[2], **ATTRIBUTED)


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    from prunelib.models import describe

    return load(describe("reference/llama-copier"))


def ask(results: Path, sql: str) -> pd.DataFrame:
    frame: pd.DataFrame = query(results, sql).to_pandas()
    return frame


def test_scores_are_those_of_a_run(results: Path, scores: prunelib.Scores) -> None:
    run = ask(results, 'select layer, site, "index", score, standard_error from attributions '
                       'order by "rank"')
    pd.testing.assert_frame_equal(scores.frame(), run, check_exact=True, check_dtype=False)
    assert len(scores) == len(run) == 608


def test_importance_of_heads_is_that_of_a_run(results: Path, model: prunelib.Model) -> None:
    found = model.attribute_heads("to_upper", shots=1, prompts=4)
    run = ask(results, """select layer, "index", value, standard_error from component_scores
                          where site = 'head' and score = 'gradient_gate' and task = 'to_upper'
                          and shots = 1 order by layer, "index" """)
    assert np.concatenate([found.values[i] for i in range(4)]).tolist() == run["value"].tolist()
    assert np.concatenate([found.errors[i] for i in range(4)]).tolist() == run[
        "standard_error"].tolist()
    assert len(model.attribute_heads("to_upper", shots=1, prompts=4, site="ffn")) == 4


def test_the_top_is_what_a_search_switches_off(results: Path, model: prunelib.Model,
                                               scores: prunelib.Scores) -> None:
    digest = ask(results, "select intervention from interventions "
                          "where role = 'chosen'")["intervention"][0]
    stored = find_intervention(results, "reference/llama-copier", digest).intervention
    off = scores.top(0.05, layer=2)
    assert model.without(off).intervention == stored == Ablation.of(off) and len(off) == 30
    assert scores.top(30) == off == scores.top(30, layer=2)
    assert [c.index for c in off] == scores.frame()["index"][:30].tolist()


def test_evaluations_are_those_of_a_run(results: Path, model: prunelib.Model,
                                        scores: prunelib.Scores) -> None:
    changed = model.without(scores.top(30))
    found = changed.evaluate(TASKS, shots=SHOTS, examples=EXAMPLES)
    answers = found.predictions().sort_values(["task", "shots", "example"])
    run = ask(results, f"""
        select prediction, correct, copied, copied_position from predictions
        where purpose = 'report' and intervention = '{changed.intervention.digest}'
        order by task, shots, example""")
    for column in ("prediction", "correct", "copied"):
        assert answers[column].tolist() == run[column].tolist()
    assert answers["correct"].mean() > 0.8 > 0.3 > answers["correct_untouched"].mean()
    columns = {"accuracy": "accuracy", "reference_accuracy": "accuracy_untouched",
               "difference": "difference", "difference_low": "difference_low",
               "difference_high": "difference_high", "copying_error": "copying_error",
               "reference_copying_error": "copying_error_untouched", "p_value": "p_value", "n": "n",
               "queries": "queries"}
    view = ask(results, f"select task, shots, {', '.join(columns)} from comparisons "
                        "where role = 'chosen' order by task, shots").rename(columns=columns)
    mine = found.frame().sort_values(["task", "shots"]).reset_index(drop=True)[list(view)]
    pd.testing.assert_frame_equal(mine, view, check_dtype=False, rtol=1e-9)
    same = found.frame()
    assert (same["copying_difference"] - same["copying_error"]
            + same["copying_error_untouched"]).abs().max() < 1e-12
    assert (same["copying_difference_low"] <= same["copying_difference"]).all()
    total = found.total()
    line = ask(results, "select * from leaderboard where method = 'integrated_gradients'").iloc[0]
    for name in ("accuracy", "accuracy_low", "accuracy_high", "copying_error", "difference",
                 "difference_low", "difference_high", "p_value", "n", "queries"):
        assert total[name] == pytest.approx(line[name], rel=1e-9), name
    assert "difference in accuracy +" in repr(found)


def test_steering_is_that_of_a_run(model: prunelib.Model, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    assert prunelib.run(prunelib.Recipe.model_validate({
        "name": "steer", "models": ["reference/llama-copier"], "engine": "transformers",
        "steering": {"methods": [{"method": "caa", "strongest": 2.0}], "proxy": "to_upper",
                     "shots": 1, "prompts": 6},
        "search": {"layers": "all", "rates": [0.05], "examples": 4, "shots": 1},
        "controls": {"random": 0, "random_searches": 0},
        "evaluate": {"tasks": ["to_upper"], "shots": [1], "examples": 4},
    }), folder).complete
    tried = ask(folder, "select intervention, layer from interventions where role = 'grid'")
    found = {layer: model.steered("caa", "to_upper", size=layer, strength=2.0, shots=1,
                                  prompts=6).intervention.digest for layer in range(4)}
    assert dict(zip(tried["layer"], tried["intervention"], strict=True)) == found
    with pytest.raises(UserError, match="no layer 9"):
        model.steered("caa", "to_upper", size=9, strength=2.0, shots=1, prompts=6)


def test_the_untouched_model_has_no_difference(model: prunelib.Model) -> None:
    found = model.evaluate("to_upper", shots=1, examples=4)
    assert list(found.frame())[:4] == ["task", "shots", "n", "queries"]
    assert "difference" not in found.frame() and "untouched" not in repr(found)


def test_answers_are_those_of_an_evaluation(model: prunelib.Model, scores: prunelib.Scores
                                            ) -> None:
    changed = model.without(scores.top(30))
    prompts = prunelib.task("to_upper").prompts(6, shots=2)
    found = changed.evaluate("to_upper", shots=2, examples=6).predictions()
    assert changed.generate(prompts) == found["prediction"].tolist()
    assert model.generate(prompts) == found["prediction_untouched"].tolist()
    assert len(model.generate(["ab->", "->"], max_tokens=1)) == 2


def test_logits_and_hidden_states_are_those_of_transformers(
        model: prunelib.Model, loaded: Loaded, scores: prunelib.Scores) -> None:
    prompts = prunelib.task("to_upper").prompts(3, shots=2)
    off = scores.top(30)
    texts = [e.prompt for e in prompts]
    for row, text in enumerate(texts):
        ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            said: Any = loaded.model(ids, output_hidden_states=True)
        assert model.logits(texts)[row] == pytest.approx(said.logits[0, -1].numpy(), abs=1e-4)
        assert model.hidden(prompts, 1)[row] == pytest.approx(
            said.hidden_states[2][0].numpy(), abs=1e-4)
        assert model.hidden(prompts, 1, "head")[row].shape == (
            ids.shape[1], loaded.info.heads, loaded.info.head_size)
    indices = [c.index for c in off]
    assert np.abs(model.hidden(prompts, 2, "mlp_hidden")[0][:, indices]).min() > 0
    assert not model.without(off).hidden(prompts, 2, "mlp_hidden")[0][:, indices].any()
    assert (model.without(off).hidden(prompts, 1)[0] == model.hidden(prompts, 1)[0]).all()
    assert (model.without(off).logits(texts) != model.logits(texts)).any()


def test_the_model_is_untouched_after_every_call(model: prunelib.Model, loaded: Loaded,
                                                 scores: prunelib.Scores) -> None:
    texts = ["ab->"]
    before = model.logits(texts)
    changed = model.without(scores.top(30))
    changed.logits(texts)
    changed.generate(texts)
    with pytest.raises(UserError):
        changed.hidden(texts, 1, "mlp_row")
    assert (model.logits(texts) == before).all()


def test_models_are_changed_one_after_the_other(model: prunelib.Model) -> None:
    one, other = Component(1, "mlp_hidden", 3), Component(2, "head", 0)
    assert model.without([one]).without([other]).intervention == Ablation.of([one, other])
    assert repr(model.without([one])) == "reference/llama-copier without 1 components"
    with pytest.raises(UserError, match="the untouched model"):
        model.without([one]).attribute("to_upper")


def test_tasks_by_name_and_from_a_file(tmp_path: Path, model: prunelib.Model) -> None:
    file = tmp_path / "my words.json"
    file.write_text(str([[f"w{i}", f"{i % 7}"] for i in range(60)]).replace("'", '"'))
    own = prunelib.task(file)
    assert own.name == "my_words" and len(own.prompts(3, shots=1)) == 3
    assert "pairs:" in repr(own)
    found = model.evaluate([own, "to_upper"], shots=1, examples=3)
    assert found.frame()["task"].tolist() == ["my_words", "to_upper"]
    assert len(model.attribute(own, shots=1, prompts=2, layers=[1], method="weight")) == 608
    from prunelib.api.tasks import several

    assert [one.name for one in several("icl18")] == list(ICL18)
    assert prunelib.task("list_first+to_upper").name == "list_first+to_upper"


@pytest.mark.parametrize(("call", "said"), [
    (lambda m: prunelib.task("vowel_countin"), "did you mean vowel_counting"),
    (lambda m: prunelib.task({"name": "x", "pair": "y.json"}), "pairs"),
    (lambda m: prunelib.load("reference/llama-copie"), "llama-copier"),
    (lambda m: m.attribute("to_upper", metod="wanda"), "method"),
    (lambda m: m.attribute("to_upper", layers=[9]), "layers 0 to 3"),
    (lambda m: m.evaluate([]), "no tasks"),
    (lambda m: m.hidden(["a"], 9), "layers 0 to 3"),
    (lambda m: m.hidden(["a"], 0, "steam"), "stream"),
    (lambda m: m.generate("a"), "list of prompts"),
    (lambda m: m.generate(["a" * 5000]), "too long"),
    (lambda m: m.logits(["a" * 5000]), "too long"),
    (lambda m: m.without([Component(9, "head", 0)]), "is not in a model"),
])
def test_mistakes_are_one_line(model: prunelib.Model, call: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        call(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how_many", [0, 609, 0.0, 1.5])
def test_a_top_that_is_not_there(scores: prunelib.Scores, how_many: float) -> None:
    with pytest.raises(UserError, match="top"):
        scores.top(how_many)
    with pytest.raises(UserError, match="scored: 2"):
        scores.top(3, layer=1)


def test_scores_can_be_drawn(scores: prunelib.Scores, model: prunelib.Model) -> None:
    axes = scores.plot(mark=5).axes[0]
    red = axes.collections[-1].get_offsets()
    assert sorted(y for _, y in red) == sorted(scores.frame()["score"][:5])
    heads = model.attribute_heads("to_upper", shots=1, prompts=4)
    cells = heads.plot().axes[0].images[0].get_array()
    assert cells is not None and cells.tolist() == [heads.values[i].tolist() for i in range(4)]


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = ("import sys, prunelib; prunelib.load('reference/llama'); prunelib.task('to_upper'); "
            "heavy = {'torch', 'ray', 'vllm', 'transformers', 'matplotlib'} & set(sys.modules); "
            "sys.exit(str(heavy) if heavy else 0)")
    subprocess.run([sys.executable, "-c", code], check=True)
