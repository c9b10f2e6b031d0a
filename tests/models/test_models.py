from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hub_cache
import pytest
import torch
from hub_server import OWNER, serving
from safetensors.torch import load_file, save_file
from tiny_families import FAMILIES
from transformers import AutoConfig

from prunelib.errors import UserError
from prunelib.interventions.ablation import BASELINE
from prunelib.interventions.export import export
from prunelib.models import ModelInfo, describe, load, reference_models
from prunelib.models.checkpoint import INDEX
from prunelib.models.info import planted_neurons
from prunelib.models.loading import load_tokenizer


@pytest.fixture
def copy(info: ModelInfo, tmp_path: Path) -> Path:
    return Path(shutil.copytree(info.path, tmp_path / "copy"))


def test_identity_follows_content_not_place(info: ModelInfo, copy: Path) -> None:
    there = describe(str(copy))
    assert there.key == info.key
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
    edit(copy, model_type="llama")
    for key in ("quantization_config", "compression_config"):
        with pytest.raises(UserError, match="quantised"):
            describe(edit(copy, **{key: {"bits": 4}}))
        edit(copy, **{key: None})
    for name in ("quantize_config.json", "quant_config.json"):
        (copy / name).write_text("{}")
        with pytest.raises(UserError, match="quantised"):
            describe(str(copy))
        (copy / name).unlink()
    describe(str(copy))


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


def without(folder: Path, *places: str, **others: torch.Tensor) -> str:
    """The checkpoint again without the tensors with one of ``places`` in their names."""
    tensors = load_file(folder / "model.safetensors")
    left = {k: v for k, v in tensors.items() if not any(place in k for place in places)}
    save_file(left | others, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


def test_an_incomplete_layer_is_refused_before_anything_is_loaded(
    info: ModelInfo, copy: Path
) -> None:
    with pytest.raises(UserError, match=r"incomplete: layer 2 of 4 has no input_layernorm\.weight"):
        describe(edit(copy, num_hidden_layers=4))
    edit(copy, num_hidden_layers=info.layers)
    with pytest.raises(UserError, match=r"layer 0 of \d has no mlp\.down_proj\.weight"):
        describe(without(copy, "layers.0.mlp.down"))


@pytest.mark.parametrize("name", [n for n in FAMILIES if "," not in n])
def test_a_layer_of_every_family_is_missed(
    name: str, families: Callable[[str], ModelInfo], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(families(name).path, tmp_path / "copy"))
    describe(str(folder))
    describe.cache_clear()
    with pytest.raises(UserError, match="incomplete: layer 1 of 2"):
        describe(without(folder, "layers.1.", "h.1."))


def test_what_is_missing_or_of_another_shape_is_never_random(copy: Path, tmp_path: Path) -> None:
    """Neither measured nor exported: transformers puts random numbers there, with a warning."""
    tensors = load_file(copy / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    for name, reason, others in (
        ("model.embed_tokens.weight", "lacks 1 of its weights, model.embed_tokens.weight", {}),
        ("model.norm.weight", r"model.norm.weight is \[3\] in its checkpoint .* and \[64\]",
         {"model.norm.weight": torch.ones(3)}),
    ):
        save_file(tensors, copy / "model.safetensors", {"format": "pt"})
        describe.cache_clear()
        found = describe(without(copy, name, **others))
        with pytest.raises(UserError, match=reason):
            load(found)
        with pytest.raises(UserError, match=reason):
            export(found, BASELINE, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # Tied, it is the embedding.
    without(copy, "norm.weight", "lm_head", **{k: v for k, v in tensors.items() if "norm" in k})
    describe.cache_clear()
    tied = load(describe(edit(copy, tie_word_embeddings=True))).model.get_output_embeddings()
    assert torch.equal(tied.weight, embedding)


@pytest.mark.parametrize("name", reference_models())
def test_the_shipped_models_are_complete(name: str) -> None:
    load(describe(name))


@pytest.mark.parametrize("bytes_", [b"", b"version https://git-lfs.github.com/spec/v1", None],
                         ids=["empty", "pointer", "cut off"])
def test_broken_weights_are_refused(bytes_: bytes | None, copy: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] if bytes_ is None else bytes_)
    with pytest.raises(UserError, match=r"not a whole \.safetensors file"):
        describe(str(copy))


@pytest.mark.parametrize("content", ["[]", "[[1, 2]]", '"llama"', "null", "{"])
def test_a_config_is_a_mapping(content: str, copy: Path) -> None:
    (copy / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"no readable config\.json"):
        describe(str(copy))


def test_a_config_that_means_nothing_is_refused(copy: Path) -> None:
    for changes, reason in (
        ({"num_hidden_layers": 0}, "has no layers"),
        ({"num_hidden_layers": "four"}, "cannot read its config.json.*expected int"),
        ({"num_hidden_layers": None}, "cannot read its config.json"),
    ):
        with pytest.raises(UserError, match=reason) as refused:
            describe(edit(copy, **changes))
        assert "\n" not in str(refused.value)


def test_a_model_without_a_tokenizer_is_refused(copy: Path) -> None:
    (copy / "tokenizer.json").rename(copy / "elsewhere.json")
    with pytest.raises(UserError, match=r"no tokenizer.*tokenizer\.json"):
        describe(str(copy))
    (copy / "tokenizer.json").write_text("[]")
    with pytest.raises(UserError, match="no readable tokenizer"):
        load_tokenizer(describe(str(copy)))


def test_a_revision_is_for_models_of_the_hub(copy: Path) -> None:
    for name in (str(copy), "reference/llama"):
        with pytest.raises(UserError, match="one version: leave out revision: v2"):
            describe(name, "v2")


def split(folder: Path) -> None:
    """The checkpoint in two files with an index, and once more in one that no index names."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    names = {k: f"model-0000{1 + ('layers.1.' in k)}-of-00002.safetensors" for k in tensors}
    for file in set(names.values()):
        save_file({k: v for k, v in tensors.items() if names[k] == file}, folder / file,
                  {"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))


def test_only_files_of_the_index_count(info: ModelInfo, copy: Path) -> None:
    split(copy)
    doubled = describe(str(copy))
    (copy / "consolidated.safetensors").unlink()
    describe.cache_clear()
    alone = describe(str(copy))
    assert alone == doubled
    assert alone.bytes == sum(f.stat().st_size for f in copy.glob("*.safetensors"))
    (copy / INDEX).rename(copy / "elsewhere.json")  # without one, every file as ever
    describe.cache_clear()
    assert describe(str(copy)).weights_digest == alone.weights_digest
    (copy / "elsewhere.json").rename(copy / INDEX)
    for model in (load(info).model, load(alone).model):
        assert sum(p.numel() for p in model.parameters()) * 4 < alone.bytes
    shutil.copy(Path(info.path) / "model.safetensors", copy)  # transformers would read this one
    describe.cache_clear()
    assert describe(str(copy)).bytes == alone.bytes + info.bytes


def test_an_index_that_is_wrong_is_refused(copy: Path) -> None:
    split(copy)
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match="incomplete: model-00002-of-00002"):
        describe(str(copy))
    for content in ("[]", "{", '{"weight_map": {}}', '{"weight_map": {"x": 1}}',
                    '{"weight_map": {"x": "../other.safetensors"}}'):
        (copy / INDEX).write_text(content)
        with pytest.raises(UserError, match=INDEX):
            describe(str(copy))


def elsewhere(code: str, address: str, home: Path, offline: str = "0") -> str:
    """What code prints in a process of its own, with a hub at an address and an empty cache."""
    return subprocess.run(
        [sys.executable, "-c", code], text=True, stdout=subprocess.PIPE, check=True,
        env=os.environ | {"HF_HOME": str(home), "HF_ENDPOINT": address,
                          "HF_HUB_OFFLINE": offline}).stdout


def test_only_files_of_the_index_are_fetched(copy: Path, tmp_path: Path) -> None:
    split(copy)
    code = ("from prunelib.models import describe; "
            f"print(describe('{OWNER}/copy', 'v1').weights_digest)")
    with serving(tmp_path) as (address, asked):
        said = elsewhere(code, address, tmp_path / "home")
    assert said.split() == [describe(str(copy)).weights_digest]
    assert any("model-00002" in path for path in asked)
    assert not any("consolidated" in path for path in asked)


def test_of_an_outline_only_the_config_is_fetched(copy: Path, tmp_path: Path) -> None:
    code = ("from prunelib.models.info import outline; "
            f"print(outline('{OWNER}/copy', 'v1').layers)")
    with serving(tmp_path) as (address, asked):
        said = elsewhere(code, address, tmp_path / "home")
    assert said.split() == [str(describe(str(copy)).layers)]
    fetched = {path.rpartition("/")[2] for path in asked if "/resolve/" in path}
    assert fetched == {"config.json"}


def test_a_repository_of_pickles_is_told_where_its_safetensors_are(copy: Path, tmp_path: Path
                                                                   ) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    code = ("from prunelib.errors import UserError; from prunelib.models import describe\n"
            f"try: describe('{OWNER}/copy')\nexcept UserError as error: print(error)")
    with serving(tmp_path) as (address, asked):
        for offline, said in (("0", f"give it as {{id: {OWNER}/copy, revision: refs/pr/3}}"),
                              ("1", "has no .safetensors weights in ")):
            found = elsewhere(code, address, tmp_path / "home", offline)
            assert said in found, found
    assert not any("pytorch_model.bin" in path for path in asked if "/resolve/" in path)


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


def test_planted_neurons(copy: Path) -> None:
    assert planted_neurons(describe(str(copy))) == []
    (copy / "planted.json").write_text('{"layer": 1, "neurons": [3, 5]}')
    assert planted_neurons(describe(str(copy))) == [(1, 3), (1, 5)]
