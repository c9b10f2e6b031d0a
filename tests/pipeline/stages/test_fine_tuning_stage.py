"""Fine-tuning and task vectors in a run, against the same done by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline.small import recipe

import prunelib
from prunelib.engines.base import Prompt
from prunelib.engines.limits import stop_token_ids
from prunelib.engines.transformers import TransformersEngine
from prunelib.interventions.ablation import BASELINE
from prunelib.interventions.fine_tuning import fine_tune
from prunelib.interventions.task_vectors import Reading, best_layer, task_vector_answers
from prunelib.models import ModelInfo, load
from prunelib.pipeline.stages.registry import counts
from prunelib.pipeline.units.prompts import tokenized
from prunelib.recipe.controls import FineTuningSpec
from prunelib.scoring.correctness import first_line
from prunelib.tasks import draw, get_task
from prunelib.tasks.tokenization import encode

TUNING = FineTuningSpec(epochs=3, learning_rate=1e-2)


@pytest.fixture(scope="module")
def results(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beyond") / "r"
    plan = recipe(
        info, controls={"random": 0, "random_searches": 0, "fine_tuning": TUNING.model_dump()},
        evaluate={"tasks": ["to_upper", "list_first"], "shots": [1], "examples": 6,
                  "task_vectors": {"shots": 2, "examples": 5}})
    assert prunelib.run(plan, folder).complete
    linked = prunelib.open_results(folder).sql(
        "select count(*) from run_units where stage = 'evaluate'").fetchall()
    assert linked == [(counts(plan, info.layers, info.heads)["evaluate"].most,)]
    assert prunelib.run(plan, folder).units_done == 0
    return folder


def test_a_fine_tuned_model_answers_as_one_tuned_by_hand(info: ModelInfo, results: Path) -> None:
    loaded = load(info)
    samples = [encode(e, loaded.tokenizer) for e in draw(
        get_task("vowel_counting"), split="attribute", shots=2, seed=0, count=6)]
    tuned = fine_tune(info, [(s.prompt, s.gold) for s in samples], TUNING)
    examples = draw(get_task("list_first"), split="report", shots=1, seed=0, count=6)
    prompts = [Prompt(tuple(loaded.tokenizer(e.prompt)["input_ids"]), 3) for e in examples]
    expected = [first_line(c.text, "\n") for c in TransformersEngine(tuned).generate(prompts)]
    found = prunelib.open_results(results).sql(
        "select prediction from _answers where method = 'fine_tuning' and task = 'list_first' "
        "order by example").fetchall()
    assert [row[0][:1] for row in found] == [text[:1] for text in expected]
    before = TransformersEngine(info).generate(prompts)
    assert [c.text for c in before] != expected  # it did change something


def test_task_vectors_are_those_of_the_layer_chosen_on_the_search_split(
    info: ModelInfo, results: Path
) -> None:
    loaded, task = load(info), get_task("to_upper")
    some = draw(task, split="report", shots=2, seed=0, count=5)
    reading = Reading(tokenized(task, some, loaded.tokenizer)[0].max_tokens,
                      tuple(stop_token_ids(loaded.tokenizer, loaded.info.ends)))
    tried = task_vector_answers(loaded, task, reading, split="search", shots=2, seed=0, count=5)
    right = {layer: [task.matches(first_line(text, "\n"), e.gold)
                     for e, text in zip(tried.examples, answers, strict=True)]
             for layer, answers in tried.task_vector.items()}
    layer = best_layer(right)
    reported = task_vector_answers(loaded, task, reading, split="report", shots=2, seed=0, count=5,
                                   layers=[layer])
    found = prunelib.open_results(results).sql(
        "select way, layer, prediction from task_vectors where task = 'to_upper' and split = "
        f"'report' and intervention = '{BASELINE.digest}' order by way, example").fetchall()
    for way, place, answers in (("icl", None, reported.icl),
                                ("task_vector", layer, reported.task_vector[layer]),
                                ("zero_shot", None, reported.zero_shot)):
        assert [(p, a) for w, p, a in found if w == way] == [
            (place, first_line(text, "\n")) for text in answers]
    accuracy = prunelib.open_results(results).sql(
        "select method, prompts from task_vector_accuracy where task = 'to_upper'").fetchall()
    assert sorted(accuracy) == [("integrated_gradients", 5), ("none", 5)]
