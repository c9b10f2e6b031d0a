"""Rules that both engines share."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from prunelib.engines.base import Canary, Prompt
from prunelib.engines.canary import check_canary
from prunelib.engines.limits import prompt_error, stop_token_ids, until_stop
from prunelib.errors import EngineDeadError
from prunelib.models import ModelInfo, describe
from prunelib.models.loading import load_tokenizer
from prunelib.reference.corpus import EOS, vocabulary
from prunelib.reference.tokenizer import build_tokenizer


def test_newline_and_end_of_sequence_stop() -> None:
    ids = vocabulary()
    assert stop_token_ids(build_tokenizer(), ()) == sorted([ids["\n"], ids[EOS]])


def test_every_token_that_contains_a_newline_stops_and_is_looked_up_once() -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocab = {"a": 0, "\n": 1, "a\n": 2, "\n\n": 3, "b": 4, "</s>": 5}
    core = Tokenizer(models.WordLevel(vocab, unk_token="a"))
    core.decoder = decoders.Fuse()
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")
    assert stop_token_ids(tokenizer, ()) == [1, 2, 3, 5]
    tokenizer.batch_decode = None  # a second look would fail
    stop_token_ids(tokenizer, ()).append(99)
    assert stop_token_ids(tokenizer, ()) == [1, 2, 3, 5]


def test_every_end_that_a_models_files_name_is_one(info: ModelInfo, tmp_path: Path) -> None:
    """`generation_config.json` may name several; a default of transformers is none of them."""
    folder = Path(shutil.copytree(info.path, tmp_path / "copy"))
    for name, ends in (("config.json", 5), ("generation_config.json", [9, 7])):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | {"eos_token_id": ends}))
    found = describe(str(folder))
    assert found.ends == (5, 7, 9) and found.key != info.key
    assert {5, 7, 9} <= set(stop_token_ids(load_tokenizer(found), found.ends))
    for name in ("config.json", "generation_config.json"):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(
            {key: value for key, value in content.items() if key != "eos_token_id"}))
    describe.cache_clear()
    assert describe(str(folder)).ends == ()


def test_until_stop() -> None:
    assert until_stop([7, 8, 2, 9], [2, 3], 10) == (7, 8)
    assert until_stop([7, 8, 2, 9], [2, 3], 1) == (7,)
    assert until_stop([2], [2], 5) == ()


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        (Prompt((1, 2), 3), None),
        (Prompt((1, 2, 3), 3), "too long"),
        (Prompt((), 3), "empty"),
        (Prompt((1,), 0), "max_tokens"),
        (Prompt((1, 9), 1), "vocabulary"),
        (Prompt((1, -1), 1), "vocabulary"),
    ],
)
def test_prompt_error(prompt: Prompt, error: str | None) -> None:
    found = prompt_error(prompt, context=5, vocabulary=9)
    assert found is None if error is None else error in str(found)


def test_the_canarys_tolerance_depends_on_the_dtype_and_nan_never_passes() -> None:
    canary = Canary((1,), (4, 5), (-1.0, -2.0))
    check_canary(canary, [-1.0005, -2.0], "float32")
    check_canary(canary, [-1.1, -2.0], "bfloat16")
    for answer, dtype in (([-1.1, -2.0], "float32"), ([-1.0, math.nan], "bfloat16")):
        with pytest.raises(EngineDeadError):
            check_canary(canary, answer, dtype)
