"""Tasks of lm-evaluation-harness in a run: from the recipe to the view."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import call
from lm_eval_tasks import write_tasks
from safetensors.torch import save_file
from small import ask, done_and_resumed, recipe

import prunelib
from prunelib.errors import UserError
from prunelib.interventions.ablation import BASELINE
from prunelib.models import ModelInfo
from prunelib.pipeline.plan import estimate
from prunelib.pipeline.stages.lm_eval import LmEvalJob, lm_eval_summary
from prunelib.pipeline.stages.study import Count
from prunelib.recipe.checks import check_recipe
from prunelib.recipe.recipe import Recipe
from prunelib.results.query import open_results
from prunelib.tasks import lm_eval_catalogue, lm_eval_tasks
from prunelib.tasks.lm_eval_catalogue import catalogue, leaves
from prunelib.tasks.lm_eval_tasks import facts, load_task

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")

COMPONENTS = [[layer, "mlp_hidden", index] for layer in (0, 1) for index in range(0, 48, 2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


def of_harness(info: ModelInfo, folder: str, **changes: Any) -> Recipe:
    """Tasks of the harness alone."""
    content = recipe(info).model_dump(mode="json", exclude={"attribution", "evaluate"})
    return Recipe.model_validate(content | {
        "controls": {"random": 2},
        "evaluate": {"tasks": ["lm_eval:local_choice", "lm_eval:local_rolling"],
                     "lm_eval": {"folders": folder}},
        "interventions": {"name": "half", "components": COMPONENTS}} | changes)


def test_everything_that_is_evaluated_is_asked(info: ModelInfo, folder: str, tmp_path: Path
                                               ) -> None:
    save_file({"v": torch.linspace(-9, 9, info.stream)}, tmp_path / "v.safetensors")
    made = of_harness(info, folder, interventions=[
        {"name": "half", "components": COMPONENTS},
        {"name": "shift", "vector": {"file": str(tmp_path / "v.safetensors"), "layer": 0}}])
    found = done_and_resumed(made, tmp_path / "r")
    assert found == {"canary": 7, "evaluate": 2 * 7}  # each of the two has two random controls
    rows = ask(tmp_path / "r", "select method, role, task, metric, examples, errors, aggregation, "
                               "score, baseline_score, difference, difference_low from lm_eval")
    assert {row[:2] for row in rows} == {("none", "baseline"), ("half", "chosen"),
                                         ("shift", "chosen"), ("random", "control")}
    assert len(rows) == 5 * (2 + 3)  # random sets and random directions are two lines
    for method, _, _, _, examples, errors, how, score, baseline, difference, low in rows:
        assert (examples, errors) == (5, 0)
        assert difference == score - baseline and (method != "none" or difference == 0)
        assert (low is None) == (how != "mean")
    changed = {row[0] for row in rows if row[3] == "word_perplexity" and row[9] != 0}
    assert changed == {"half", "shift", "random"}
    run = open_results(tmp_path / "r")
    summary = lm_eval_summary(run, run.sql("select run from runs").fetchall()[0][0])
    assert summary and len(summary.tables[0].rows) == len(rows)
    [(answered, expected)] = ask(tmp_path / "r", f"""
        select score, (select avg(value) from lm_eval_scores where metric = 'acc'
                       and intervention = '{BASELINE.digest}')
        from lm_eval where metric = 'acc' and role = 'baseline'""")
    assert answered == expected
    [(kinds, version, digests)] = ask(
        tmp_path / "r", "select list_sort(list(distinct request_type)), any_value(harness), "
                        "count(distinct task_digest) from lm_eval_scores")
    assert kinds == ["loglikelihood_rolling", "multiple_choice"] and digests == 2
    assert version == lm_eval_catalogue.version()


def test_beside_a_search_and_fine_tuning(info: ModelInfo, folder: str, tmp_path: Path) -> None:
    made = recipe(
        info, controls={"random": 1, "random_searches": 0, "fine_tuning": {"epochs": 1}},
        evaluate={"tasks": ["to_upper"], "shots": [1], "examples": 3,
                  "lm_eval": {"tasks": ["local_choice"], "folders": folder, "examples": 3}})
    prunelib.run(made, tmp_path / "r")
    found = ask(tmp_path / "r", "select distinct method, role from lm_eval order by all")
    assert found == [("fine_tuning", "control"), ("integrated_gradients", "chosen"),
                     ("none", "baseline"), ("random", "control")]
    assert ask(tmp_path / "r", "select distinct examples from lm_eval") == [(3,)]


def test_beside_a_steering_that_was_searched(info: ModelInfo, folder: str, tmp_path: Path) -> None:
    made = recipe(
        info, attribution="none", search={"rates": [0.5], "examples": 6, "shots": 1},
        steering={"methods": ["caa"], "prompts": 8, "shots": 1, "proxy": "to_upper"},
        evaluate={"tasks": ["to_upper"], "shots": [1], "examples": 3,
                  "lm_eval": {"tasks": ["local_choice"], "folders": folder}})
    assert prunelib.run(made, tmp_path / "r").complete
    assert estimate(made)[-1].units == Count(2, 4)
    assert ask(tmp_path / "r", "select distinct method, role from lm_eval order by all") == [
        ("caa", "chosen"), ("none", "baseline")]


def test_what_does_not_fit_is_an_error_of_its_example(info: ModelInfo, folder: str,
                                                      tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (Path(folder) / "test.jsonl").read_text().splitlines()]
    rows[1]["start"] = "and so on " * 200
    long = Path(write_tasks(tmp_path / "tasks"))
    (long / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prunelib.run(of_harness(info, str(long)), tmp_path / "r")
    [(errors,)] = ask(tmp_path / "r", "select distinct error from lm_eval_scores where example = 1 "
                                      "and task = 'local_choice'")
    assert errors.startswith("too long: ") and errors.endswith("in a context of 256")
    assert ask(tmp_path / "r", "select distinct examples, errors from lm_eval where task = "
                               "'local_choice'") == [(4, 1)]


def test_the_whole_task_is_told_if_no_example_fits(info: ModelInfo, tmp_path: Path) -> None:
    long = write_tasks(tmp_path / "tasks")
    config = Path(long) / "local_choice.yaml"
    config.write_text(config.read_text().replace("Q: ", "and so on " * 100))
    prunelib.run(of_harness(info, long), tmp_path / "r")
    assert ask(tmp_path / "r", "select distinct metric, examples, errors, score from lm_eval where "
                               "task = 'local_choice'") == [(None, 0, 5, None)]


def test_a_task_whose_data_changes_between_is_not_asked(info: ModelInfo, folder: str) -> None:
    from prunelib.errors import UnitError
    from prunelib.pipeline.units.unit import Unit
    from prunelib.tasks.lm_eval_tasks import AskingOptions

    options = AskingOptions(0, 1, None, chat=False, multiturn=False, system=None)
    job = LmEvalJob("float32", "transformers", BASELINE, "local_choice", "other", options, None,
                    (folder,))
    with pytest.raises(UnitError, match="has other content on this node"):
        job.run(None, Unit(info, job))  # type: ignore[arg-type]


def test_the_digest_is_of_what_is_asked_not_of_where_it_is(folder: str, tmp_path: Path) -> None:
    first = facts("local_choice", (folder,), 0, None)
    assert (first.requests, first.shots, first.examples) == ("multiple_choice", 0, 5)
    copy = write_tasks(tmp_path / "copy")
    assert facts("local_choice", (copy,), 0, None) == first
    assert facts("local_choice", (copy,), 0, 3).digest != first.digest
    assert facts("local_choice", (copy,), 2, None).digest != first.digest
    train = Path(copy) / "train.jsonl"
    train.write_text(train.read_text().replace("birds", "bees"))
    forget()
    assert facts("local_choice", (copy,), 0, None) == first  # demonstrations are not shown
    config = Path(copy) / "local_choice.yaml"
    config.write_text(config.read_text().replace("Q: ", "Question: "))
    forget()
    assert facts("local_choice", (copy,), 0, None).digest != first.digest


def forget() -> None:
    for cached in (load_task, facts, lm_eval_tasks.first_requests, catalogue):
        cached.cache_clear()


def test_a_task_that_says_no_shots_has_none(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    config = Path(folder) / "local_choice.yaml"
    config.write_text(config.read_text() + "num_fewshot: 0\n")
    assert facts("local_choice", (folder,), 3, None).shots == 0
    assert facts("local_likely", (folder,), 3, None).shots == 3


@pytest.mark.parametrize(("section", "message"), [
    ("local_chioce", "unknown task of lm-evaluation-harness 'local_chioce': did you mean local_c"),
    ({"tasks": "lm_eval:local_choice", "shot": 2}, "did you mean 'shots'"),
    ({"tasks": []}, "at least 1 item"),
    ({"tasks": "local_choice", "multiturn": True}, "needs chat: true"),
    ({"tasks": "local_choice", "folders": "/no/such"}, "'/no/such' is no folder"),
    ({"tasks": "flan_held_in"}, "changes its tasks, such as 'anli_r1_prompt-0': name tasks"),
    ({"tasks": "local_broken"}, "task 'local_broken' of lm-evaluation-harness cannot be loaded: "),
    ({"tasks": "local_choice", "chat": True}, "no chat template"),
])
def test_mistakes_end_before_any_work(section: Any, message: str, info: ModelInfo, tmp_path: Path,
                                      capfd: pytest.CaptureFixture[str]) -> None:
    folder = Path(write_tasks(tmp_path / "tasks"))
    config = (folder / "local_choice.yaml").read_text()
    (folder / "local_broken.yaml").write_text(config.replace("local_choice", "local_broken")
                                              .replace("test.jsonl", "gone.jsonl"))
    given = section if isinstance(section, dict) else {"tasks": section}
    path = tmp_path / "bad.yaml"
    path.write_text(json.dumps({
        "name": "bad", "models": [info.path], "engine": "transformers",
        "evaluate": {"lm_eval": {"folders": str(folder)} | given, "tasks": ["to_upper"],
                     "shots": 1, "examples": 1}}))
    for command in (["validate", path], ["run", path, "--results", tmp_path / "r"]):
        assert call(*command) == 2
        said = capfd.readouterr().err
        assert message in said and said.count("\n") == 1, said
    assert not (tmp_path / "r").exists()


def test_without_the_harness_a_line_says_what_to_install(
    info: ModelInfo, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise lm_eval_catalogue.metadata.PackageNotFoundError(name)

    catalogue.cache_clear()
    monkeypatch.setattr(lm_eval_catalogue.metadata, "version", missing)
    with pytest.raises(UserError, match=r"pip install 'prunelib\[lm-eval\]'"):
        check_recipe(of_harness(info, folder))


def test_names_of_the_harness_go_into_its_section(info: ModelInfo, folder: str) -> None:
    made = of_harness(info, folder, evaluate={
        "tasks": ["to_upper", "lm_eval:boolq"], "lm_eval": {"tasks": "arc_easy", "shots": 1}})
    assert made.evaluate.tasks == ("to_upper",) and made.evaluate.lm_eval
    assert made.evaluate.lm_eval.tasks == ("arc_easy", "boolq")
    without = of_harness(info, folder, evaluate={"tasks": ["to_upper"]})
    assert "lm_eval" in without.model_dump()["evaluate"]
    assert made.run_id != without.run_id


@pytest.mark.slow
def test_the_catalogue_is_that_of_the_harness() -> None:
    """Also which tasks have a tag, and for groups the tasks that they hold."""
    from lm_eval.tasks import TaskManager

    manager, ours = TaskManager(), catalogue()
    assert sorted(ours) == manager.all_tasks
    kinds = {"task": manager.all_subtasks, "group": manager.all_groups, "tag": manager.all_tags}
    for kind, names in kinds.items():
        assert sorted(name for name, entry in ours.items() if entry.kind == kind) == names
    for name in manager.all_tags:
        assert set(ours[name].members) == manager.task_index[name].tags, name
    assert leaves("boolq") == ["boolq"] and len(leaves("mmlu")) == 57
    assert leaves("ai2_arc") == ["arc_challenge", "arc_easy"]
    assert leaves("mmlu_stem")[0] in leaves("mmlu")
