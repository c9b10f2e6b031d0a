from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import hub_cache
import pytest
from transformers import AutoConfig

from prunelib.errors import UserError
from prunelib.models import ModelInfo, describe
from prunelib.models.identity import planted_units


@pytest.fixture
def copy(info: ModelInfo, tmp_path: Path) -> Path:
    return Path(shutil.copytree(info.path, tmp_path / "copy"))


def test_identity_follows_content_not_place(info: ModelInfo, copy: Path) -> None:
    there = describe(str(copy))
    assert (there.weights_digest, there.tokenizer_digest) == tuple(info.key)
    assert there.id != info.id


def test_a_changed_weight_changes_the_identity(info: ModelInfo, copy: Path) -> None:
    file = copy / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    assert describe(str(copy)).weights_digest != info.weights_digest


def test_hub_layout_is_identified_by_its_blobs(info: ModelInfo, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    hub_cache.fetched(tmp_path, "some/model", "c" * 40, Path(info.path))
    hub_cache.use(tmp_path, monkeypatch)
    found = describe("some/model")
    assert found.revision == "c" * 40
    assert found.layers == info.layers


def edit(folder: Path, **changes: object) -> str:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return str(folder)


def test_what_cannot_be_ablated_is_refused_with_the_reason(copy: Path) -> None:
    with pytest.raises(UserError, match="architecture 'mixtral' is not supported"):
        describe(edit(copy, model_type="mixtral"))
    with pytest.raises(UserError, match="quantised"):
        describe(edit(copy, model_type="llama", quantization_config={"bits": 4}), "x")


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v3", "olmoe"])
def test_a_mixture_of_experts_is_refused(kind: str, tmp_path: Path) -> None:
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="mixture of experts"):
        describe(str(tmp_path))


def test_a_variant_that_cannot_be_ablated_is_refused(
    families: Callable[[str], ModelInfo], tmp_path: Path
) -> None:
    for name, changes, reason in (
        ("mamba", {"use_bias": True}, "use_bias"),
        ("bloom", {"slow_but_exact": True, "pretraining_tp": 2}, "slow_but_exact"),
    ):
        folder = Path(shutil.copytree(families(name).path, tmp_path / name))
        with pytest.raises(UserError, match=reason):
            describe(edit(folder, **changes))


def test_pickled_weights_are_not_read(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"no \.safetensors"):
        describe(str(copy))


def test_unknown_models(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean reference/llama-copier"):
        describe("reference/lama-copier")
    with pytest.raises(UserError, match="does not exist"):
        describe(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"config\.json"):
        describe(str(tmp_path))


def test_a_name_that_is_nowhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="unknown model 'some/other'"):
        describe("some/other")


def test_planted_units(copy: Path) -> None:
    assert planted_units(describe(str(copy))) == []
    (copy / "planted.json").write_text('{"layer": 1, "units": [3, 5]}')
    assert planted_units(describe(str(copy))) == [(1, 3), (1, 5)]
