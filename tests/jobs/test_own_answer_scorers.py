"""Functions of the user's own that say whether an answer is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import call
from own_module import NAME, folder, write_module

import prunelib
from cluster.submission import taken_along
from prunelib.interventions.contrast import contrast_answers
from prunelib.models import ModelInfo
from prunelib.pipeline.units.executor import InlineExecutor
from prunelib.pipeline.units.unit import Unit
from prunelib.pipeline.units.worker import Worker
from prunelib.recipe.load import load_recipe
from prunelib.results.storage.store import Store
from prunelib.tasks import draw

__all__ = ["folder"]

RECIPE = """
name: own
models: [{model}]
engine: transformers
tasks: [{{name: words, pairs: words.json, correct: '{correct}'}}]
attribution: {{method: weight, prompts: 4, shots: 2, proxy: words}}
search: {{layers: [1], rates: [0.2], examples: 6, shots: 2}}
controls: {{random: 0, random_searches: 0}}
evaluate: {{tasks: [words], shots: [2], examples: 12}}
"""
#: Right if of an even number of letters; and other things.
SOURCE = """
def even(prediction, gold, example):
    assert gold == example.gold and example.query
    return len(prediction) % 2 == 0

def number(prediction, gold, example):
    return float(len(prediction))

def reads(prediction, gold, example):
    return int(prediction or 0) == 1

def two(prediction, gold):
    return True
"""
WORDS = {a + b + c: c + b + a for a in "abcdef" for b in "ghi" for c in "jkl"}


def write(folder: Path, info: ModelInfo, function: str = "even", source: str = SOURCE) -> Path:
    write_module(folder, source)
    (folder / "words.json").write_text(json.dumps(WORDS))
    (folder / "r.yaml").write_text(RECIPE.format(model=info.path, correct=f"{NAME}:{function}"))
    return folder / "r.yaml"


def test_it_judges_every_answer_of_a_run(folder: Path, info: ModelInfo) -> None:
    made = write(folder, info)
    assert call("validate", made) == 0
    assert call("run", made, "--results", folder / "r", "--inline") == 0
    rows = prunelib.open_results(folder / "r").execute(
        "select purpose, prediction, correct, copied, answers from predictions").fetchall()
    assert {row[0] for row in rows} == {"search", "report"}
    assert {row[2] for row in rows} == {True, False}
    for _, prediction, correct, copied, answers in rows:
        assert correct == (len(prediction) % 2 == 0)
        assert copied == (not correct and prediction in answers)


def test_an_edited_one_judges_again(folder: Path, info: ModelInfo) -> None:
    before = load_recipe(write(folder, info)).task("words").digest
    assert before == load_recipe(folder / "r.yaml").task("words").digest
    write_module(folder, SOURCE + "\n# another")
    assert before != load_recipe(folder / "r.yaml").task("words").digest


def test_a_recipe_without_one_keeps_its_name(folder: Path, info: ModelInfo) -> None:
    """The name of the run from before there was such a key."""
    recipe = prunelib.Recipe.model_validate({
        "name": "a", "models": ["reference/llama"],
        "tasks": [{"name": "words", "pairs": "words.json"}], "evaluate": {"tasks": ["words"]}})
    assert recipe.run_id == "a-7001b3f2"
    (spec,) = load_recipe(write(folder, info)).tasks
    other = recipe.model_copy(update={"tasks": (spec,)})
    assert other.run_id != recipe.run_id


class _Elsewhere(InlineExecutor):
    """Performs units where the module is another one."""

    def submit(self, unit: Unit) -> None:
        write_module(Path(), SOURCE + "\n# edited")
        super().submit(unit)


def test_a_worker_with_another_version_of_it_refuses_it(folder: Path, info: ModelInfo) -> None:
    recipe = load_recipe(write(folder, info))
    executor = _Elsewhere(lambda: Worker(Store.open(folder / "r")))
    report = prunelib.run(recipe, folder / "r", executor)
    assert report.failed
    assert all("task 'words' has other content on this node" in str(attempt.error_text)
               for attempt in report.failed)


def test_answers_that_it_takes_for_right_are_no_wrong_ones(folder: Path, info: ModelInfo) -> None:
    source = "def even(prediction, gold, example): return prediction[:1] in ('j', 'k')"
    task = load_recipe(write(folder, info, source=source)).task("words")
    found = [contrast_answers(task, example, "wrong") for example in draw(
        task, split="attribute", shots=1, seed=0, count=8)]
    assert all(answers is not None and answers[1][0] == "l" for answers in found)


def test_submit_takes_its_module_and_the_pairs_along(folder: Path, info: ModelInfo) -> None:
    recipe = load_recipe(write(folder, info))
    assert taken_along(recipe) == {f"{NAME}.py": folder / f"{NAME}.py",
                                   "words.json": folder / "words.json"}


@pytest.mark.parametrize(("function", "why"), [
    ("number", f"answer scorer '{NAME}:number' has to return True or False, not float"),
    ("reads", "fails for the answer '"),
    ("two", "TypeError: two() takes 2 positional arguments but 3 were given"),
    ("nope", "cannot be imported: module"),
    ("", "is not of the form package.module:function"),
])  # fmt: skip
def test_what_cannot_judge_is_one_line(folder: Path, info: ModelInfo, function: str, why: str,
                                       capfd: pytest.CaptureFixture[str]) -> None:
    assert call("validate", write(folder, info, function)) == 2
    out, err = capfd.readouterr()
    assert not out and len(err.splitlines()) == 1
    assert why in err and "r.yaml: line 5" in err


def test_choices_of_a_rows_own_are_right_by_their_place(
    folder: Path, info: ModelInfo, capfd: pytest.CaptureFixture[str]
) -> None:
    made = write(folder, info)
    made.write_text(made.read_text().replace("{name: words, pairs: words.json,", (
        "{name: words, path: ., template: '{q} {answer}', choices: options,")))
    assert call("validate", made) == 2
    assert "a choice of a row's own is right by its place" in capfd.readouterr().err
