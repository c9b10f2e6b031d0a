"""What a recipe says of prompts: chats, pools that are used up, demonstrations, whole test sets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pipeline.small import ask, done_and_resumed, recipe

import prunelib
from prunelib.errors import UserError
from prunelib.models import ModelInfo, describe
from prunelib.models.loading import load_tokenizer
from prunelib.pipeline.driver import prepare
from prunelib.pipeline.stages.registry import counts
from prunelib.recipe.checks import check_recipe
from prunelib.recipe.load import parse_recipe
from prunelib.tasks import SUITES, ChatFormat, get_task
from prunelib.tasks.chat import template_digest
from prunelib.tasks.tokenization import token_ids

TEMPLATE = ("{{ bos_token }}{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{{ eos_token }}"
            "{% endfor %}{% if add_generation_prompt %}a:{% endif %}")


@pytest.fixture(scope="module")
def chatty(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> ModelInfo:
    """The tiny model with a chat template."""
    folder = Path(shutil.copytree(info.path, tmp_path_factory.mktemp("chat") / "model"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return describe(str(folder))


def test_a_chat_goes_through_every_stage(chatty: ModelInfo, tmp_path: Path) -> None:
    made = recipe(
        chatty, format="chat", system="be brief",
        controls={"random": 1, "fine_tuning": {"epochs": 1}},
        evaluate={"tasks": ["to_upper"], "shots": [1], "examples": 4,
                  "task_vectors": {"shots": 2, "examples": 4},
                  "capability": {"text": "prompts", "tasks": SUITES["capability"][:1],
                                 "examples": 2}})
    done_and_resumed(made, tmp_path)
    tokenizer = load_tokenizer(chatty)
    written = ChatFormat.of(tokenizer, "be brief")
    rows = ask(tmp_path, 'select "query", demonstrations, answers, prompt_tokens, format, error '
                         "from predictions")
    assert len(rows) > 20
    for query, inputs, answers, tokens, form, error in rows:
        prompt = written.render(tuple(zip(inputs, answers, strict=True)), query)
        ids = token_ids(prompt, tokenizer, templated=True)
        assert (len(ids), "chat", None) == (tokens, form, error)
        assert ids.count(tokenizer.bos_token_id) == 1
    assert ask(tmp_path, "select chat_template from models") == [(template_digest(tokenizer),)]
    assert ask(tmp_path, "select distinct format from attributions") == [("chat",)]
    (tuned,), = ask(tmp_path, "select distinct content from interventions "
                              "where kind = 'fine_tuning'")
    content = json.loads(tuned)
    assert content["templated"] and content["samples"][0][0].startswith("<s>s:be brief</s>u:")


def test_a_model_without_a_template_is_refused_in_one_line(info: ModelInfo) -> None:
    for changes in ({"format": "chat"}, {"evaluate": {"tasks": "to_upper", "format": "chat"}}):
        with pytest.raises(UserError, match=r"format chat: model '.*': its tokenizer has no chat "
                                            "template") as stopped:
            prepare(recipe(info, **changes))
        assert "\n" not in str(stopped.value)
    prepare(recipe(info))


def test_another_template_is_another_tokenizer(chatty: ModelInfo, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(chatty.path, tmp_path / "model"))
    assert describe(str(folder)).key == chatty.key
    other = Path(shutil.copytree(chatty.path, tmp_path / "other"))
    (other / "chat_template.jinja").write_text(TEMPLATE.replace("a:", "a: "))
    assert describe(str(other)).key != chatty.key


def test_a_pool_that_is_used_up_is_asked_once(info: ModelInfo, tmp_path: Path) -> None:
    """Also by what is planned: with 0 shots there are as many prompts as queries."""
    task = get_task("to_upper")
    pools = {split: len({x for x, _ in task.split(split)})
             for split in ("attribute", "search", "report")}
    made = recipe(
        info,
        attribution={"objective": "max_logit", "proxy": "to_upper", "prompts": 40, "shots": 0,
                     "block": 3, "max_nodes": 4},
        search={"rates": [0.5], "examples": 50, "shots": 0, "strategy": "successive_halving"},
        evaluate={"tasks": ["to_upper"], "shots": [0], "examples": 100})
    done_and_resumed(made, tmp_path)
    # two nested quadrature levels at most, and a block for every three prompts
    blocks = -(-pools["attribute"] // 3) * 2
    assert counts(made, 2, 2)["attribute"].least == blocks < 14 * 2
    for purpose, split in (("report", "report"), ("search", "search")):
        assert ask(tmp_path, f"""
            select distinct count(*), count(distinct "query") from predictions
            where purpose = '{purpose}' and repeat = 0 group by intervention, unit_id
            order by 1 desc limit 1""") == [(pools[split], pools[split])]
    assert ask(tmp_path, "select distinct prompts from attributions") == [(pools["attribute"],)]


def test_demonstrations_come_from_the_split_that_is_asked_for(info: ModelInfo, tmp_path: Path
                                                              ) -> None:
    made = recipe(
        info,
        attribution={"prompts": 4, "shots": 2, "max_nodes": 4, "demonstrations": "search"},
        search={"rates": [0.5], "examples": 4, "shots": 2, "demonstrations": "attribute"},
        evaluate={"tasks": ["to_upper", "en_fr"], "shots": [1], "demonstrations": "attribute",
                  "examples": {"to_upper": "all", "en_fr": 3}})
    check_recipe(made)
    done_and_resumed(made, tmp_path)
    found = ask(tmp_path, "select distinct task, split, unnest(demonstrations) from predictions")
    for task, split, shown in found:
        assert shown in {x for x, _ in get_task(task).split("attribute")}
        assert split != "attribute"
    reported = dict(ask(tmp_path, 'select task, count(distinct "query") from predictions '
                                  "where purpose = 'report' group by task"))
    assert reported == {"to_upper": get_task("to_upper").queries("report"), "en_fr": 3}
    scores = "select layer, index, score from attributions order by all"
    plain = recipe(info, attribution={"prompts": 4, "shots": 2, "max_nodes": 4})
    assert prunelib.run(plain, tmp_path / "plain").complete
    assert ask(tmp_path, scores) != ask(tmp_path / "plain", scores)


SMALL = """
name: small
models: [reference/llama]
evaluate: {tasks: [to_upper, en_fr], shots: 1, examples: 4}
"""


@pytest.mark.parametrize(("change", "message"), [
    ("system: be brief", "system is the system prompt of format: chat"),
    ("search: {demonstrations: report}", "search.demonstrations: report is what is reported"),
    ("attribution: {demonstrations: report}", "attribution.demonstrations: report is what is"),
    ("evaluate: {tasks: [to_upper], demonstrations: serch}",
     "unknown split of 'to_upper' for demonstrations 'serch': did you mean search"),
    ("evaluate: {tasks: [to_upper], examples: {to_uper: 4}}",
     "unknown task in evaluate.examples 'to_uper': did you mean to_upper"),
    ("evaluate: {tasks: [to_upper], examples: none}", "evaluate.examples"),
    ("format: chatt", "unknown prompt format 'chatt': did you mean chat"),
])
def test_mistakes_are_named(change: str, message: str) -> None:
    key = change.split(":")[0]
    kept = [line for line in SMALL.splitlines() if not line.startswith(key)]
    with pytest.raises(UserError, match=message) as stopped:
        parse_recipe("\n".join([*kept, change]))
    assert "\n" not in str(stopped.value)


def test_a_data_sets_own_split_names_its_demonstrations(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(
            json.dumps({"text": f"{split}{i}", "label": "yes" if i % 2 else "no"}) + "\n"
            for i in range(12)))
    made: Any = prunelib.Recipe.model_validate({
        "name": "own", "models": ["reference/llama"],
        "tasks": [{"name": "mine", "path": str(folder), "template": "{text}: {answer}",
                   "splits": {"attribute": "train", "search": "train", "report": "test"}}],
        "evaluate": {"tasks": ["mine"], "shots": 1, "examples": "all",
                     "demonstrations": "train"}})
    check_recipe(made)
    assert made.sources("mine", "train") == ("attribute", "search")
    assert made.examples("mine") == 12
