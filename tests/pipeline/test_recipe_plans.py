"""What ``prunelib plan`` says of every shipped recipe, against what the run then does.

Recipes run as they are but for their size: tiny models, two tasks, few prompts and examples.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import opt_data
import pytest
import yaml
from pipeline.small import Watcher
from pipeline.small import recipe as small_recipe

import jobs
import prunelib
from prunelib.models import ModelInfo
from prunelib.pipeline.plan import estimate
from prunelib.pipeline.progress import read_progress
from prunelib.recipe.checks import check_recipe
from prunelib.recipe.recipe import Recipe
from prunelib.tasks import SUITES

RECIPES = sorted((Path(jobs.__file__).parent / "recipes").glob("*.yaml"))
#: One recipe of each study; the others are left to `make test-all`.
QUICK = {"demo", "methods_reference", "copy_bias_reference", "head_importance_reference",
         "in_context_heads_reference", "overnight"}
#: Sizes of sections and of parts of them, where a recipe has them.
SMALL: dict[str, dict[str, Any]] = {
    "attribution": {"prompts": 4, "block": 2, "shots": 1},
    "search": {"examples": 6, "shots": 1},
    "evaluate": {"examples": 3},
    "steering": {"prompts": 4, "block": 2, "shots": 1},
    "task_vectors": {"examples": 2, "shots": 1},
    "importance": {"prompts": 2, "examples": 2, "sequences": 1},
    "in_context_heads": {"prompts": 4, "each": 1, "heads": 1, "orders": 2},
}


def data_set(name: str, folder: Path) -> dict[str, Any]:
    """A local data set of this name in place of one of the hub."""
    place = folder / name
    if name in opt_data.TASKS:
        opt_data.write(name, place, copies=12)
        return {"name": name, "path": str(place)}
    place.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        (place / f"{split}.jsonl").write_text("\n".join(
            json.dumps({"text": f"{split[0]}{i} {'good' if i % 2 else 'bad'}", "label": i % 2})
            for i in range(40)))
    return {"name": name, "path": str(place), "template": "{text} : {answer}",
            "label": "label", "answers": {0: "no", 1: "yes"},
            "splits": {"attribute": "train", "search": "validation", "report": "test"}}


def talking(model: str, folder: Path) -> str:
    """The model with a chat template."""
    made = shutil.copytree(model, folder / "talking")
    (made / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}")
    return str(made)


def small(content: dict[str, Any], model: str, folder: Path) -> Recipe:
    """The recipe at another size."""
    def shrink(part: Any, **sizes: Any) -> None:
        if isinstance(part, dict):
            part.update({key: value for key, value in sizes.items() if key in part
                         or key in ("examples", "prompts", "block")})

    given = [task if isinstance(task, str) else task["name"] for task in content.pop("tasks", [])]
    if given:
        content["tasks"] = [data_set(name, folder) for name in given[:2]]
    attribution = content.get("attribution", [])
    for part in attribution if isinstance(attribution, list) else [attribution]:
        shrink(part, **SMALL["attribution"])
        if "max_nodes" in part:
            part["max_nodes"] = 17
        if "seeds" in part:
            part["seeds"] = part["seeds"][:2]
        if part.get("prompts", 0) > 10:
            part["prompts"] = 6  # as the recipe has two numbers of prompts
    if "search" in content:
        shrink(content["search"], **SMALL["search"])
        content["search"]["rates"] = [0.1, 0.2, 0.5]
        if content["search"].get("split") == "attribute":
            content["search"].pop("examples")
    evaluate = content.get("evaluate", {})
    if "evaluate" in content:
        shrink(evaluate, **SMALL["evaluate"])
        tasks = [t for name in evaluate["tasks"] for t in SUITES.get(name, (name,))]
        evaluate["tasks"] = given[:2] if set(given) & set(tasks) else tasks[:2]
        evaluate["shots"] = sorted({min(shots, 2) for shots in evaluate.get("shots", [1])})[:2]
        if "task_vectors" in evaluate:
            evaluate["task_vectors"] = SMALL["task_vectors"]
        if "capability" in evaluate:
            evaluate["capability"] = {"text": "prompts", "tasks": ["general_knowledge"],
                                      "examples": 2}
    shrink(content.get("steering"), **SMALL["steering"])
    for section in ("importance", "in_context_heads"):
        if section in content:
            content[section] |= SMALL[section]
    if "importance" in content:
        removal = content["importance"]["removal"]
        removal["fractions"] = [0.3, 0.6]
    if "in_context_heads" in content and given:
        content["in_context_heads"] |= {"task": given[0], "held_out": given[1:2],
                                        "labels": ["a", "b"]}
    made = Recipe.model_validate(content | {"models": [model], "engine": "transformers"})
    check_recipe(made)
    return made


@pytest.mark.parametrize("path", [
    path if path.stem in QUICK else pytest.param(path, marks=pytest.mark.long)
    for path in RECIPES], ids=lambda path: path.stem)
def test_a_plan_counts_what_the_run_then_does(
    path: Path, families: Callable[[str], ModelInfo], tmp_path: Path
) -> None:
    info = families("llama, shared keys")
    content = yaml.safe_load(path.read_text())
    model = talking(info.path, tmp_path) if content.get("format") == "chat" else info.path
    recipe = small(content, model, tmp_path / "data")
    planned = {line.stage: line for line in estimate(recipe)}
    assert planned and all(line.teraflop > 0 for line in planned.values())

    results = tmp_path / "r"
    watcher = Watcher(results)
    report = prunelib.run(recipe, results, None, watcher)
    assert not report.failed and not report.stopped
    assert watcher.asked.keys() == planned.keys()
    for stage, line in planned.items():
        least = 0 if report.skipped and stage != "attribute" else line.units.least
        assert least <= watcher.asked[stage] <= line.units.most, (stage, line.units)
    for look in watcher.seen:  # what is called known stays, and nothing goes beyond what is said
        for stage in look.stages:
            assert stage.done <= (stage.total or 0)
            if stage.exact and not report.skipped:
                assert stage.total == watcher.asked[stage.stage], stage
    after = {line.stage: line for line in estimate(recipe, results)}
    assert {stage: (line.units.least, line.done) for stage, line in after.items()} == {
        stage: (count, count) for stage, count in watcher.asked.items()}
    assert all(line.units.exact and line.teraflop == 0 for line in after.values())
    last = {stage.stage: (stage.done, stage.total) for stage in read_progress(results).stages}
    assert last == {stage: (count, count) for stage, count in watcher.asked.items()}


WANDA = {"method": "wanda", "prompts": 4, "shots": 1}
INTEGRATED = {"prompts": 4, "shots": 1, "block": 2, "max_nodes": 4}
HEADS = {"prompts": 2, "examples": 2, "sequences": 0, "oracle": []}
#: Recipes whose parts share units, or ask for fewer than they seem to.
SHARING: dict[str, dict[str, Any]] = {
    "the prompts of one attribution begin those of another": {
        "attribution": [INTEGRATED, INTEGRATED | {"prompts": 8, "name": "more"}]},
    "blocks that are larger than all prompts": {
        "attribution": [INTEGRATED, INTEGRATED | {"block": 4, "name": "b"},
                        INTEGRATED | {"block": 9, "name": "c"}]},
    "prompts chosen in two ways": {
        "attribution": [WANDA | {"prompts": 1, "choose": "wrong", "proxy": "to_upper"},
                        WANDA | {"prompts": 1, "name": "b", "proxy": "to_upper"}],
        "search": {"rates": [0.1, 0.5], "split": "attribute"}},
    "one canary prompt for two studies": {
        "attribution": WANDA, "controls": {"random": 0, "random_searches": 0},
        "search": {"rates": [0.1], "examples": 6, "shots": 2, "proxy": "to_upper"},
        "importance": HEADS | {"oracle": ["ffn"], "removal": False}},
    "fractions of less than one head": {
        "attribution": [], "importance": HEADS | {"removal": {"fractions": [0.01],
                                                              "ffns": "none"}}},
}


@pytest.mark.parametrize("changes", SHARING.values(), ids=SHARING)
def test_units_that_are_shared_are_counted_once_at_least(
    changes: dict[str, Any], info: ModelInfo, tmp_path: Path
) -> None:
    recipe, watcher = small_recipe(info, **changes), Watcher(tmp_path)
    check_recipe(recipe)
    planned = {line.stage: line.units for line in estimate(recipe)}
    prunelib.run(recipe, tmp_path, None, watcher)
    assert planned.keys() == watcher.asked.keys()
    for stage, units in planned.items():
        assert units.least <= watcher.asked[stage] <= units.most, (stage, units)
