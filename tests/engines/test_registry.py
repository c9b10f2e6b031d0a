"""Which engine runs what."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prunelib.engines.registry import choose_engine, not_in_vllm, start
from prunelib.errors import UserError
from prunelib.models import ModelInfo, describe
from prunelib.pipeline.driver import model_notes
from prunelib.recipe.recipe import Recipe


@pytest.fixture(params=[True, False], ids=["vllm", "no vllm"])
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    spec = importlib.util.find_spec("json") if request.param else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    return bool(request.param)


def test_auto_takes_vllm_where_it_is(installed: bool, info: ModelInfo) -> None:
    assert choose_engine("auto", info) == ("vllm" if installed else "transformers")
    assert choose_engine("transformers", info) == "transformers"


def test_asking_for_vllm_where_it_is_not_is_a_users_error(installed: bool, info: ModelInfo) -> None:
    if installed:
        assert choose_engine("vllm", info) == "vllm"
    else:
        with pytest.raises(UserError, match="vllm is not installed"):
            choose_engine("vllm", info)


def test_mamba_has_vllm_kernels_on_a_gpu_only(
    info: ModelInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    mamba = dataclasses.replace(info, model_type="mamba")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_engine("auto", mamba) == "transformers"
    with pytest.raises(UserError, match="no CPU kernels"):
        choose_engine("vllm", mamba)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_engine("auto", mamba) == "vllm"


@pytest.mark.parametrize("kind", ["gpt_neox", "bloom"])
def test_what_vllm_computes_otherwise_runs_on_transformers(
    kind: str, info: ModelInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    other = dataclasses.replace(info, model_type=kind)
    assert choose_engine("auto", other) == "transformers"
    with pytest.raises(UserError, match=f"cannot run.*{kind}"):
        choose_engine("vllm", other)


@pytest.mark.parametrize(("family", "config", "why"), [
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "inverse_layer"),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
     "sliding window in some layers"),
])
def test_configs_that_vllm_does_not_follow(
    family: str, config: dict[str, Any], why: str, families: Callable[[str], ModelInfo],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(families(family).path, tmp_path / "model"))
    content = json.loads((folder / "config.json").read_text())
    content.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(content | config))
    info = describe(str(folder))
    assert (not_in_vllm(info) or "").count(why) == 1
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert choose_engine("auto", info) == "transformers"
    assert choose_engine("auto", families(family)) == "vllm"
    recipe = Recipe.model_validate({
        "name": "r", "models": [info.path], "attribution": [], "evaluate": {"tasks": ["to_upper"]}})
    (note,) = model_notes(recipe, info)
    assert note.startswith(f"{info.id}: transformers answers, as vllm") and why in note


def test_start_refuses_what_it_does_not_know(info: ModelInfo) -> None:
    with pytest.raises(UserError, match="unknown engine"):
        start("llama.cpp", info)
