"""One bad example costs one row, whatever the stage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pipeline.small import ask, done_and_resumed, recipe

import prunelib
from prunelib.models import ModelInfo, describe

#: More tokens than the tiny models have positions.
LONG = " ".join("abcdefghij" * 20)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SIZE = 60


def task(folder: Path, long: int, **changes: Any) -> dict[str, Any]:
    """Letters and their capitals; of the inputs of each split the first ``long`` are too long."""
    place = folder / "data"
    place.mkdir(exist_ok=True)
    for split in ("train", "validation", "test"):
        rows = [{"text": f"{LETTERS[i % 26]} {LETTERS[i // 26]}" + (f" {LONG}" if i < long else ""),
                 "label": LETTERS[i % 5].upper()} for i in range(SIZE)]
        (place / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {"name": "mine", "path": str(place), "template": "{text}:{answer}",
            "splits": {"attribute": "train", "search": "validation", "report": "test"}} | changes


def mine(info: ModelInfo, folder: Path, long: int = 10, **changes: Any) -> Any:
    sections: dict[str, Any] = {
        "tasks": [task(folder, long)],
        "attribution": {"prompts": 40, "shots": 0, "block": 10, "max_nodes": 4,
                        "proxy": "mine", "objective": "max_logit"},
        "search": {"rates": [0.1, 0.5], "examples": 40, "shots": 0},
        "evaluate": {"tasks": ["mine"], "shots": [0], "examples": 40}}
    return recipe(info, **sections | changes)


def left_out(results: Path) -> dict[str, int]:
    return dict(ask(results, "select split, count(distinct example) from predictions where "
                             "purpose = 'left_out' and error like 'too long%' group by all"))


@pytest.fixture
def positions(families: Callable[[str], ModelInfo]) -> ModelInfo:
    """A model that has no position for what is too long."""
    return families("gpt2")


def test_prompts_that_are_too_long_are_rows(positions: ModelInfo, tmp_path: Path) -> None:
    results = tmp_path / "r"
    done_and_resumed(mine(positions, tmp_path), results)
    found = left_out(results)
    assert found.keys() == {"attribute", "search"} and all(1 <= n <= 10 for n in found.values())
    assert ask(results, "select distinct prompts from attributions") == [
        (40 - found["attribute"],)]
    assert ask(results, "select distinct count(*) from predictions where purpose = 'search' "
                        "group by intervention") == [(40 - found["search"],)]
    reported = ask(results, "select intervention, count(*), count(error) from predictions "
                            "where purpose = 'report' and repeat = 0 group by all")
    assert len(reported) > 1 and {(n, bool(errors)) for _, n, errors in reported} == {(40, True)}
    assert not ask(results, "select * from evaluations where purpose = 'left_out'")


@pytest.mark.parametrize("attribution", [
    {"choose": "wrong"}, {"method": "wanda"}, {"objective": "copy_shift", "shots": 1}], ids=str)
def test_every_way_to_attribute_leaves_them_out(
    positions: ModelInfo, tmp_path: Path, attribution: dict[str, Any]
) -> None:
    results = tmp_path / "r"
    made = mine(positions, tmp_path, long=6, attribution={
        "prompts": 12, "shots": 0, "block": 6, "max_nodes": 4, "proxy": "mine",
        "objective": "max_logit"} | attribution,
        search={"rates": [0.5], "examples": 40, "shots": 0})
    assert prunelib.run(made, results).complete
    assert left_out(results)


def test_task_vectors_leave_them_out(positions: ModelInfo, tmp_path: Path) -> None:
    results = tmp_path / "r"
    made = mine(positions, tmp_path, long=4, evaluate={
        "tasks": ["mine"], "shots": [0], "examples": 60, "task_vectors": {
            "examples": 60, "shots": 1}})
    assert prunelib.run(made, results).complete
    for split, n, errors in ask(results, "select split, count(distinct example), count(distinct "
                                         "if(error is null, null, example)) from task_vectors "
                                         "where way = 'icl' group by intervention, split"):
        assert n == 60 and 4 <= errors < 30, split
    (prompts,), = ask(results, "select distinct prompts from task_vector_accuracy")
    assert 30 < prompts < 60


def test_the_study_ends_where_too_few_are_left(positions: ModelInfo, tmp_path: Path) -> None:
    report = prunelib.run(mine(positions, tmp_path, long=45), tmp_path / "r")
    (why,) = report.stopped.values()
    assert "fewer than half" in str(why) and "too long" in str(why)
    assert not report.failed and not ask(tmp_path / "r", "select * from prompt_scores")


@pytest.fixture
def merging(info: ModelInfo, tmp_path: Path) -> ModelInfo:
    """The tiny model with a tokenizer to which ``:A`` is one token."""
    folder = Path(shutil.copytree(info.path, tmp_path / "merging"))
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary[":A"] = vocabulary.pop("é")
    content["model"]["merges"] = [[":", "A"]]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return describe(str(folder))


def test_an_answer_that_merges_with_its_prompt(merging: ModelInfo, tmp_path: Path) -> None:
    """It is left out where the tokens of answers are compared; texts are compared as ever."""
    results = tmp_path / "r"
    made = mine(merging, tmp_path, long=0)
    assert prunelib.run(made, results).complete
    assert ask(results, "select distinct split, gold, error from predictions "
                        "where purpose = 'left_out' order by all") == [
        (split, "A", "the tokenizer merges the prompt's end with the answer 'A'")
        for split in ("attribute", "search")]
    assert ask(results, "select count(*) from predictions where purpose = 'report' "
                        "and error is not null") == [(0,)]


def test_options_that_cannot_be_scored(merging: ModelInfo, tmp_path: Path) -> None:
    """Of one task a prompt is too long; of the other one every prompt has an option that merges."""
    results = tmp_path / "r"
    options = {"answers": {c: c for c in "ABCDE"}}
    tasks = [task(tmp_path, 6, **options) | {"name": "other", "template": "{text} : {answer}"},
             task(tmp_path, 6, **options)]
    made = mine(merging, tmp_path, 6, attribution=[], search={"rates": [0.5]}, tasks=tasks,
                importance={"prompts": 8, "examples": 8, "sequences": 0, "oracle": [],
                            "removal": {"fractions": [0.5], "heads": "gradient_per_token",
                                        "ffns": "none", "orders": ["own"]}},
                evaluate={"tasks": ["other", "mine"], "shots": [0], "examples": 60,
                          "scoring": "options"})
    assert prunelib.run(made, results).complete
    said = ask(results, "select distinct task, count(*), count(error) from predictions "
                        "where purpose = 'report' group by task, intervention order by all")
    assert said == [("mine", 60, 60), ("other", 60, 6)]


def test_studies_of_heads_leave_them_out(positions: ModelInfo, tmp_path: Path) -> None:
    results = tmp_path / "r"
    made = mine(positions, tmp_path, long=6, attribution=[], search={"rates": [0.5]}, importance={
        "prompts": 30, "examples": 30, "sequences": 1, "oracle": ["ffn"], "removal": {
            "heads": "gradient_per_token", "ffns": "oracle", "fractions": [0.5]}})
    report = prunelib.run(made, results)
    assert report.complete, report
    assert left_out(results)["attribute"] >= 1
    assert ask(results, "select distinct prompts from component_scores where task = 'mine'") == [
        (30 - left_out(results)["attribute"],)]


def test_prompts_of_two_labels_are_left_out(positions: ModelInfo, tmp_path: Path) -> None:
    """With demonstrations that are short, a long query alone is too long."""
    place = tmp_path / "labels"
    place.mkdir()
    for split in ("train", "validation", "test"):
        rows = [{"text": f"{LETTERS[i % 26]} {LETTERS[i // 26]}" + (f" {LONG}" if i < 4 else ""),
                 "label": i % 2} for i in range(SIZE)]
        (place / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    named = {"name": "two", "path": str(place), "template": "{text} : {answer}",
             "answers": {0: "no", 1: "yes"},
             "splits": {"attribute": "train", "search": "validation", "report": "test"}}
    results = tmp_path / "r"
    made = mine(positions, tmp_path, tasks=[named], attribution=[], search={"rates": [0.5]},
                evaluate={"tasks": ["two"]}, in_context_heads={
                    "task": "two", "held_out": [], "labels": ["a", "b"], "each": 1, "heads": 1,
                    "prompts": 30, "orders": 2})
    report = prunelib.run(made, results)
    assert report.complete, report
    assert left_out(results).keys() == {"attribute", "report"}
    said = ask(results, "select distinct count(*) from predictions where purpose = 'in_context' "
                        "group by intervention")
    assert len(said) == 1 and said[0][0] < 30
