"""Which engine runs what."""

from __future__ import annotations

import dataclasses
import importlib.util

import pytest

from prunelib.engines.registry import choose_engine, start
from prunelib.errors import UserError
from prunelib.models import ModelInfo


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


def test_start_refuses_what_it_does_not_know(info: ModelInfo) -> None:
    with pytest.raises(UserError, match="unknown engine"):
        start("llama.cpp", info)
    with pytest.raises(UserError, match="tensor_parallel"):
        start("transformers", info, tensor_parallel=2)
