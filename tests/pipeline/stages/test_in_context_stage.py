"""In-context heads as a stage of recipes, on tiny random models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline.small import rows

import prunelib
from prunelib.errors import UserError
from prunelib.heads.in_context import accuracy_changes, in_context_heads, log_probability_increase
from prunelib.heads.label_bias import ask_conditions
from prunelib.heads.label_readings import label_readings
from prunelib.heads.labelled import LabelledPrompt, encode_labelled, label_logprobs
from prunelib.interventions.ablation import Ablation, ActivationMasks
from prunelib.interventions.label_bias import minority_boost
from prunelib.models import Loaded, ModelInfo, load
from prunelib.pipeline.driver import prepare
from prunelib.recipe.load import parse_recipe
from prunelib.recipe.recipe import Recipe
from prunelib.results.storage.store import Store
from prunelib.tasks import Example, Task, draw_labelled, get_task, relabelled

SECTION: dict[str, Any] = {
    "held_out": ["number_or_word"], "each": 2, "prompts": 12, "seeds": [0, 1], "top": 2,
    "heads": 1, "random": 2, "format": "arrow", "orders": 3,
}  # fmt: skip
PLACES = ("first", "second")


def recipe(*infos: ModelInfo, **changes: Any) -> Recipe:
    return Recipe.model_validate({
        "name": "heads", "models": [info.path for info in infos], "engine": "transformers",
        "in_context_heads": SECTION | changes})


@pytest.fixture(scope="module")
def model(families: Callable[[str], ModelInfo]) -> ModelInfo:
    return families("llama, shared keys")  # 2 layers of 4 heads


@pytest.fixture(scope="module")
def finished(model: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("in-context") / "results"
    report = prunelib.run(recipe(model), results)
    assert report.complete and report.units_reused == 0
    return results


@pytest.fixture(scope="module")
def loaded(model: ModelInfo) -> Loaded:
    import torch

    torch.set_num_threads(1)  # as workers do
    return load(model)


def prompts(loaded: Loaded, split: Any, name: str = "upper_or_lower", reverse: bool = False
            ) -> tuple[Task, list[Example], list[LabelledPrompt]]:
    task = relabelled(get_task(name))
    examples = [e for seed in (0, 1) for e in draw_labelled(
        task, split=split, counts=(2, 2), seed=seed, count=12, reverse=reverse,
        prompt_format="arrow")]
    return task, examples, encode_labelled(task, examples, loaded.tokenizer)


def table(results: Path, name: str) -> list[dict[str, Any]]:
    return Store.open(results, create=False).read(name).to_pylist()


def ask(results: Path, sql: str) -> list[dict[str, Any]]:
    return prunelib.open_results(results).sql(sql).to_arrow_table().to_pylist()


def sets(results: Path, role: str) -> list[Ablation]:
    return [Ablation.from_content(json.loads(row["content"]))
            for row in table(results, "interventions") if row["role"] == role]


def test_heads_are_those_of_the_scores(finished: Path, loaded: Loaded) -> None:
    _, _, some = prompts(loaded, "attribute")
    (causal, lost), (increase, raised) = (accuracy_changes(loaded, some),
                                          log_probability_increase(loaded, some))
    queries = len({prompt.query for prompt in some})
    found = {(r["score"], r["layer"], r["index"]): r for r in table(finished, "component_scores")}
    for name, scores, errors in (("causal", causal, lost),
                                 ("log_probability_increase", increase, raised)):
        for label, layer, index in np.argwhere(~np.isnan(scores)):
            row = found[f"{name}_{PLACES[label]}_label", layer, index]
            assert row["value"] == pytest.approx(scores[label, layer, index], abs=1e-6)
            assert (row["task"], row["shots"], row["prompts"], row["queries"]) == (
                "upper_or_lower_foo_bar", 4, 24, queries)
            assert row["standard_error"] == pytest.approx(errors[label, layer, index], abs=1e-6)
    first, second = in_context_heads(causal, increase, top=2, each=1)
    assert first or second
    assert sets(finished, "in_context") == [Ablation.of(first + second)]
    for role, heads in zip(PLACES, (first, second), strict=True):
        assert sets(finished, f"in_context_{role}") == ([Ablation.of(heads)] if heads else [])


def test_random_sets_are_as_large_and_of_other_heads(finished: Path) -> None:
    (both,) = sets(finished, "in_context")
    others = sets(finished, "in_context_random")
    assert [len(other) for other in others] == [len(both)] * 2
    assert not set(both.components) & {c for other in others for c in other.components}
    seeds = [r["seed"] for r in table(finished, "interventions")
             if r["role"] == "in_context_random"]
    assert sorted(seeds) == [0, 1]


@pytest.mark.parametrize("name", ["upper_or_lower", "number_or_word"])
def test_answers_are_the_more_probable_labels(name: str, finished: Path, loaded: Loaded) -> None:
    task, examples, some = prompts(loaded, "report", name)
    (both,) = sets(finished, "in_context")
    for ablation in (Ablation(), both):
        with ActivationMasks(loaded) as masks:
            masks.set(ablation)
            best = label_logprobs(loaded, some).argmax(1)
        found = sorted((r for r in table(finished, "predictions")
                        if (r["intervention"], r["task"]) == (ablation.digest, task.name)),
                       key=lambda r: (r["seed"], r["example"]))
        assert [r["prediction"] for r in found] == [task.options[i] for i in best]
        assert [r["query"] for r in found] == [e.query for e in examples]
        assert [r["correct"] for r in found] == [
            task.options[i] == e.gold for i, e in zip(best, examples, strict=True)]
        assert {tuple(r[name] for name in ("split", "purpose", "engine", "format", "shots"))
                for r in found} == {("report", "in_context", "transformers", "arrow", 4)}


def test_readings_before_and_after_labels_change_places(finished: Path, loaded: Loaded) -> None:
    found = {(r["score"], r["layer"], r["index"]): r["value"]
             for r in table(finished, "component_scores")}
    (both,) = sets(finished, "in_context")
    for reverse, suffix in ((False, ""), (True, "_reversed")):
        readings = label_readings(loaded, prompts(loaded, "report", reverse=reverse)[2],
                                  both.components)
        for name in ("attention", "logit_minus", "value_minus"):
            means = readings.by_label(getattr(readings, name)).mean(0)
            for i, head in enumerate(both.components):
                for j, place in enumerate(PLACES):
                    assert found[f"{name}{suffix}_{place}_label", head.layer, head.index] == (
                        pytest.approx(means[i, j], abs=1e-6))
    for line in ask(finished, "from label_readings"):
        before, after = line["attention"], line["attention_reversed"]
        assert line["attention_change"] == pytest.approx(after / before - 1)
    assert len(ask(finished, "from label_readings")) == 2 * len(both)


def test_biases_with_and_without_a_mitigation(finished: Path, loaded: Loaded) -> None:
    (both,) = sets(finished, "in_context")
    lines = {(r["task"], r["mitigation"]): r for r in ask(finished, "from label_bias")}
    assert len(lines) == 2 * 3 and {r["refused"] for r in lines.values()} == {None}

    def boosted(some: Any) -> Any:
        return minority_boost(loaded, both.components, [p.minority[0] for p in some],
                              [p.minority[1] for p in some])

    for name, within in (("none", None), ("minority_boost", boosted)):
        shares = []
        for seed in (0, 1):
            asked = ask_conditions(
                loaded, relabelled(get_task("upper_or_lower")), split="report", each=2, seed=seed,
                count=12, order_count=3, prompt_format="arrow", within=within)
            shares.append([np.mean(c.logprobs.argmax(1) == [p.gold for p in c.prompts])
                           for c in asked])
        balanced, *fewer, one, two, three = zip(*shares, strict=True)
        line = lines["upper_or_lower_foo_bar", name]
        queries = len({p.query for p in prompts(loaded, "report")[2]})
        assert (line["seeds"], line["prompts"], line["queries"]) == (2, 24, queries)
        assert line["majority_bias"] == pytest.approx(np.mean(np.abs(np.subtract(
            balanced, fewer))))
        assert line["recency_bias"] == pytest.approx(np.mean(np.std([one, two, three], 0)))
        assert line["accuracy"] == pytest.approx(np.mean(balanced))
        assert 0 < line["majority_bias_p_value"] <= 1
    strengths = {(r["mitigation"], r["strength"], r["mode"]) for r in lines.values()}
    assert strengths == {("none", None, None), ("minority_boost", 0.03, None),
                         ("without_positions", None, "replace")}


def test_no_other_view_counts_these_answers(finished: Path) -> None:
    assert ask(finished, "from leaderboard") == []
    assert {r["purpose"] for r in ask(finished, "from evaluations")} == {"in_context"}


def test_a_second_run_does_nothing_and_another_folder_gets_the_same(
    finished: Path, model: ModelInfo, tmp_path: Path
) -> None:
    again = prunelib.run(recipe(model), finished)
    assert again.units_done == 0 and again.units_reused > 0
    prunelib.run(recipe(model), tmp_path)
    other = rows(tmp_path)
    assert all(found.equals(other[name]) for name, found in rows(finished).items())


def test_a_refused_mitigation_is_a_row(families: Callable[[str], ModelInfo], tmp_path: Path
                                       ) -> None:
    changed = {"heads": 1, "random": 0, "held_out": [], "labels": ["a", "b"]}
    assert prunelib.run(recipe(families("gpt2"), **changed), tmp_path).complete
    lines = {r["mitigation"]: r for r in ask(tmp_path, "from label_bias")}
    assert "learns embeddings of positions" in lines["without_positions"]["refused"]
    assert lines["without_positions"]["accuracy"] is None
    assert lines["minority_boost"]["accuracy"] is not None
    assert ask(tmp_path, "from failed_units") == []


def test_a_model_without_such_heads_is_evaluated_as_it_is(
    families: Callable[[str], ModelInfo], tmp_path: Path
) -> None:
    # It never says "bar" after these prompts, and says "foo" without any of its heads.
    changed = {"heads": 1, "random": 1, "held_out": [], "seeds": 0, "prompts": 6}
    assert prunelib.run(recipe(families("gpt2"), **changed), tmp_path).complete
    assert {r["removed"] for r in ask(tmp_path, "from in_context")} == {"none"}
    assert {r["mitigation"] for r in ask(tmp_path, "from label_bias")} == {"none"}


@pytest.mark.parametrize(("changes", "message"), [
    ("task: no_such_task", "unknown task 'no_such_task'"),
    ("held_out: [upper_or_lowr]", "did you mean upper_or_lower"),
    ("task: varied_copying", "has no two classes"),
    ("task: antonyms", "so there can be no prompts with 4"),
    ("labels: [foo, foo]", "give two different labels"),
    ("labels: ['', foo]", "give two different labels"),
    ("{each: 2, orders: 30}", "have fewer than 30 orders"),
    ("format: arow", "did you mean arrow"),
    ("head: 3", "did you mean 'heads'"),
    ("mode: subtract", "in_context_heads.mode"),
])  # fmt: skip
def test_mistakes_in_a_recipe(changes: str, message: str) -> None:
    section = changes if changes.startswith("{") else "{" + changes + "}"
    with pytest.raises(UserError, match=r"in_context_heads|unknown") as error:
        parse_recipe(f"name: x\nmodels: [reference/llama]\nin_context_heads: {section}")
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "changes", "message"), [
    ("mamba", {}, "has no attention heads"),
    ("gemma2", {}, "leave the model out"),
    ("llama, shared keys", {"heads": 3}, "use heads: 2 or fewer"),
    ("llama, shared keys", {"heads": 5, "random": 0}, "use heads: 4 or fewer"),
    ("llama, shared keys", {"labels": ["foo", "foobar"]}, "is the beginning of the other"),
])  # fmt: skip
def test_models_that_do_not_fit(
    name: str, changes: dict[str, Any], message: str, families: Callable[[str], ModelInfo]
) -> None:
    with pytest.raises(UserError, match=r"^in_context_heads: ") as error:
        prepare(recipe(families(name), **changes))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_study_ends_where_all_prompts_are_too_long(model: ModelInfo, tmp_path: Path) -> None:
    report = prunelib.run(recipe(model, each=16, prompts=2, seeds=0, held_out=[]), tmp_path)
    ((why,),) = report.stopped.values()
    assert "of 2 prompts the model can be asked 0, fewer than half" in why and "too long" in why
    assert not report.failed and report.units_done == 0
