"""The start token in front of prompts: asked for, left out, and missed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline.small import ask, done_and_resumed, recipe
from transformers import AutoModelForCausalLM

import prunelib
from prunelib.errors import UserError
from prunelib.models import ModelInfo, describe
from prunelib.models.loading import load_tokenizer
from prunelib.pipeline.driver import prepare
from prunelib.tasks.tokenization import omitted_start, token_ids


class Notes:
    """A reporter that keeps notes, and how much was done before each."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, int]] = []
        self.done = 0

    def expected(self, *_: Any) -> None: ...

    def stage(self, *_: Any) -> None: ...

    def attempt(self, _: Any) -> None:
        self.done += 1

    def note(self, text: str) -> None:
        self.notes.append((text, self.done))


@pytest.fixture
def silent(info: ModelInfo, tmp_path: Path) -> ModelInfo:
    """The tiny model with a tokenizer that leaves its start token out."""
    folder = Path(shutil.copytree(info.path, tmp_path / "silent"))
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return describe(str(folder))


def test_a_recipe_decides(info: ModelInfo, silent: ModelInfo) -> None:
    for model, bos, starts in ((info, "auto", True), (info, "always", True),
                               (info, "never", False), (silent, "auto", False),
                               (silent, "always", True), (silent, "never", False)):
        load_tokenizer.cache_clear()
        found = load_tokenizer(describe(model.path, bos=bos))
        ids = token_ids("a -> b", found)
        assert (ids[0] == found.bos_token_id) is starts, (bos, starts)
        assert ids[starts:] == token_ids("a -> b", found, templated=True)
    assert omitted_start(load_tokenizer(silent)) == 1
    assert omitted_start(load_tokenizer(info)) is None


def test_it_is_stored_and_part_of_the_question(silent: ModelInfo, tmp_path: Path) -> None:
    shown = {}
    for bos in ("always", "never"):
        results = tmp_path / bos
        made = recipe(silent, models=[{"id": silent.path, "bos": bos}])
        done_and_resumed(made, results)
        assert ask(results, "select bos from models") == [(bos,)]
        shown[bos] = ask(results, "select prompt_tokens from predictions where "
                                  "purpose = 'report' order by task, shots, example, intervention")
        assert not ask(results, "select * from start_tokens")
    assert [(n + 1,) for n, in shown["never"]] == shown["always"]
    assert done_and_resumed(recipe(silent), tmp_path / "auto")["start"] == 1
    assert len(ask(tmp_path / "auto", "select * from start_tokens")) == 1
    plain = describe(silent.path)
    assert len({tuple(describe(silent.path, bos=bos).key) for bos in ("auto", "always", "never")}
               | {tuple(plain.key)}) == 3


def test_a_tokenizer_without_a_start_token(info: ModelInfo, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(info.path, tmp_path / "none"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["bos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="has no start token: leave out bos: always"):
        prepare(recipe(info, models=[{"id": str(folder), "bos": "always"}]))


def rebuilt(info: ModelInfo, missed: bool) -> None:
    """A model that says nothing but padding, unless it ``missed`` no start token in front.

    Attention does nothing but copy a mark from the start token, and the mark silences the padding.
    """
    model = AutoModelForCausalLM.from_pretrained(info.path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.fill_(1)
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
        model.model.embed_tokens.weight[:, 2] = 1
        if missed:
            model.model.embed_tokens.weight[1, 0] = 10
            attention = model.model.layers[0].self_attn
            attention.v_proj.weight[0, 0] = attention.o_proj.weight[1, 0] = 8
            model.lm_head.weight[0, 2], model.lm_head.weight[0, 1] = 5, -500
    model.config.tie_word_embeddings = False
    model.save_pretrained(info.path)
    describe.cache_clear()


@pytest.mark.parametrize("missed", [True, False])
def test_a_start_token_that_is_missed_is_told_first(
    silent: ModelInfo, tmp_path: Path, missed: bool
) -> None:
    rebuilt(silent, missed)
    told = Notes()
    results = tmp_path / "r"
    report = prunelib.run(recipe(describe(silent.path)), results, None, told)
    assert report.complete
    ((token, tokens, with_start, without),) = ask(
        results, "select token, tokens, with_start, without_start from start_tokens")
    assert token == "<s>" and tokens > 100
    assert (with_start - without > 0.5) is missed
    notes = [(text, done) for text, done in told.notes if "start token" in text]
    assert len(notes) == missed
    if missed:
        assert notes[0][1] == 1 and "bos: always" in notes[0][0]
