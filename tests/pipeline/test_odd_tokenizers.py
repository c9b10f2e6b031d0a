"""Tokenizers that append an end, or lack what others have, change no answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pipeline.small import ask, recipe

import prunelib
from prunelib.models import ModelInfo, describe
from prunelib.models.loading import load_tokenizer
from prunelib.tasks.tokenization import appended, token_ids

Content = dict[str, Any]


def appending(content: Content, config: Content) -> None:
    """As fine-tuning with ``add_eos_token`` leaves it."""
    content["post_processor"]["single"].append({"SpecialToken": {"id": "</s>", "type_id": 0}})
    content["post_processor"]["special_tokens"]["</s>"] = {
        "id": "</s>", "ids": [2], "tokens": ["</s>"]}


def bare(content: Content, config: Content) -> None:
    """Neither padding nor an end."""
    for name in ("pad_token", "eos_token"):
        config.pop(name, None)


def outside(content: Content, config: Content) -> None:
    """Padding was added to the tokenizer, and the embedding was not made larger for it."""
    content["added_tokens"].append({
        "id": 5000, "content": "[PAD]", "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": False, "special": True})
    config["pad_token"] = "[PAD]"


def changed(info: ModelInfo, folder: Path, how: Callable[[Content, Content], None]) -> ModelInfo:
    made = Path(shutil.copytree(info.path, folder))
    files = [made / "tokenizer.json", made / "tokenizer_config.json"]
    contents = [json.loads(file.read_text()) for file in files]
    how(*contents)
    for file, content in zip(files, contents, strict=True):
        file.write_text(json.dumps(content))
    return describe(str(made))


@pytest.mark.parametrize("how", [appending, bare, outside])
def test_answers_are_those_of_the_plain_tokenizer(
    how: Callable[[Content, Content], None], info: ModelInfo, tmp_path: Path
) -> None:
    found = []
    for model in (info, odd := changed(info, tmp_path / "odd", how)):
        results = tmp_path / model.tokenizer_digest
        made = recipe(model, controls={"random": 1, "random_searches": 0, "fine_tuning": {
            "epochs": 1}}, evaluate={"tasks": ["to_upper", "en_fr"], "shots": [1], "examples": 6,
                                     "task_vectors": {"examples": 2, "shots": 1}})
        assert prunelib.run(made, results).complete
        found.append([ask(results, sql) for sql in (
            'select intervention, purpose, task, example, prediction, prompt_tokens, error from '
            "predictions where intervention not in (select intervention from interventions "
            "where kind = 'fine_tuning') order by all",
            "select layer, index, score from attributions order by all",
            "select layer, example, prediction from task_vectors order by all")])
    assert found[0] == found[1]
    assert odd.tokenizer_digest != info.tokenizer_digest


def test_what_a_tokenizer_appends(info: ModelInfo, tmp_path: Path) -> None:
    plain = load_tokenizer(info)
    odd = load_tokenizer(changed(info, tmp_path / "odd", appending))
    assert appended(plain) == () and appended(odd) == (2,)
    assert token_ids("a -> A", odd) == token_ids("a -> A", plain)
    assert odd("a -> A")["input_ids"][-1] == 2
