"""GGUF files as models: against the models that they were written from."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest
import tiny_gguf
import torch
from command_line import GOOD, call
from transformers import AutoModelForCausalLM, AutoTokenizer

import prunelib
from prunelib.errors import UserError
from prunelib.models import describe, load
from prunelib.models.gguf import cache
from prunelib.models.loading import load_tokenizer
from prunelib.tasks.tokenization import token_ids

TEXTS = ["big:large\nsmall:", "  Oslo 2024\n\n", "naïve <s>x</s>"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    describe.cache_clear()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.build_source(tmp_path_factory.mktemp("source"))


def made() -> list[str]:
    """What is in the cache, hidden folders too."""
    folder = cache() / "gguf"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits


@pytest.mark.parametrize("kind, stored", [
    ("F32", torch.float32), ("F16", torch.float16), ("Q8_0", torch.bfloat16),
    ("Q4_0", torch.bfloat16)])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_weights_and_logits_are_those_of_the_source(
    kind: str, stored: torch.dtype, tied: bool, tmp_path: Path
) -> None:
    """What is left of each matrix is what its number format leaves, by the gguf package."""
    folder = tiny_gguf.build_source(tmp_path / "source", tied)
    info = describe(str(tiny_gguf.write(folder, tmp_path / "m.gguf", kind)))
    saved = AutoModelForCausalLM.from_pretrained(info.path, dtype="auto")
    assert saved.dtype == stored and not hasattr(saved.config, "quantization_config")
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).requires_grad_(False)
    known = gguf.GGMLQuantizationType[kind]
    for name, weight in plain.named_parameters():  # a tied one once
        rounded = weight if weight.dim() == 1 else torch.from_numpy(
            gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), known), known))
        weight.data.copy_(rounded.to(stored))
        assert torch.equal(saved.state_dict()[name], rounded.to(stored)), name
    assert len(list(saved.parameters())) == len(list(plain.parameters()))
    ids = token_ids(TEXTS[0], load_tokenizer(info))
    assert torch.equal(logits(load(info).model, ids), logits(plain, ids))
    assert info.ends == (2,)


@pytest.mark.parametrize("said, pre, begins", [
    (True, "default", True), (False, "default", False), (None, "default", False),
    (None, "llama-bpe", True), (False, "llama-bpe", False)])
def test_texts_begin_with_the_start_token_where_the_file_says_so(
    said: bool | None, pre: str, begins: bool, source: Path, tmp_path: Path
) -> None:
    file = tiny_gguf.write(source, tmp_path / "m.gguf", tokenizer__ggml__pre=pre,
                           tokenizer__ggml__add_bos_token=said)
    info = describe(str(file))
    own, theirs = AutoTokenizer.from_pretrained(source), AutoTokenizer.from_pretrained(info.path)
    for text in TEXTS:
        ids = own(text)["input_ids"] if pre == "default" else theirs(
            text, add_special_tokens=False)["input_ids"]
        assert token_ids(text, load_tokenizer(info)) == [1] * begins + ids
        assert theirs(text)["input_ids"] == [1] * begins + ids
        assert theirs.decode(ids) == text


def test_a_file_is_identified_by_its_bytes_and_converted_once(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = tiny_gguf.write(source, tmp_path / "m.gguf", "Q8_0")
    first = describe(str(file))
    assert "m.gguf: converting the GGUF file" in caplog.text
    caplog.clear()
    moved = Path(shutil.copy(file, tmp_path / "other.gguf"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # needed no more
    second = describe(str(moved))
    assert (second.revision, second.key, second.path) == (first.revision, first.key, first.path)
    assert len(made()) == 1 and not caplog.text
    assert describe(str(moved), first.revision).key == first.key
    with pytest.raises(UserError, match=f"{first.revision}, not 'main'"):
        describe(str(moved), "main")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    again = describe(str(shutil.copy(file, tmp_path / "third.gguf")))
    assert again.key == first.key and again.path != first.path


@pytest.mark.slow
def test_two_processes_at_once_make_one_folder(source: Path, tmp_path: Path) -> None:
    file = tiny_gguf.write(source, tmp_path / "m.gguf")
    code = f"from prunelib.models import describe; print(describe({str(file)!r}).key)"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
            for _ in range(2)]
    said = {process.communicate()[0] for process in both}
    assert [process.returncode for process in both] == [0, 0] and len(said) == 1
    assert [name.startswith(".") for name in made()] == [False]


def refused(file: Path) -> str:
    with pytest.raises(UserError) as error:
        describe(str(file))
    assert "\n" not in str(error.value) and not made()
    return str(error.value)


def test_a_damaged_file_is_told(source: Path, tmp_path: Path) -> None:
    whole = tiny_gguf.write(source, tmp_path / "whole.gguf").read_bytes()
    for share in (0.02, 0.2, 0.6, 0.999):
        cut = tmp_path / f"cut{share}.gguf"
        cut.write_bytes(whole[: int(len(whole) * share)])
        assert "is not a whole GGUF file" in refused(cut)
    other = tmp_path / "other.gguf"
    other.write_bytes(b"PK" + whole[2:])
    assert "is no GGUF file" in refused(other)
    assert "does not exist" in refused(tmp_path / "none.gguf")


def test_what_would_be_read_wrongly_is_refused(source: Path, tmp_path: Path) -> None:
    weights = tiny_gguf.tensors(source)

    def file(**changes: Any) -> Path:
        return tiny_gguf.write(source, tmp_path / f"{len(list(tmp_path.iterdir()))}.gguf",
                               **changes)

    assert "not supported" in refused(file(arch="clip"))
    assert "architecture 'starcoder2' is not supported" in refused(file(arch="starcoder2"))
    assert "rope scaling" in refused(file(llama__rope__scaling__type="linear"))
    assert "rope scaling" in refused(file(weights=weights | {
        "rope_freqs.weight": torch.ones(8)}))
    assert "mixture of experts" in refused(file(llama__expert_count=4))
    assert "one of 3 parts" in refused(file(split__count=3))
    bias = {"blk.0.attn_q.bias": torch.ones(64)}
    assert "numbers of this GGUF file" in refused(file(weights=weights | bias))
    lacking = {k: v for k, v in weights.items() if k != "blk.1.ffn_up.weight"}
    assert "model.layers.1.mlp.up_proj.weight" in refused(file(weights=lacking))


def test_without_the_extra_a_line_says_what_to_install(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    file = tiny_gguf.write(source, tmp_path / "m.gguf")
    (tmp_path / "recipe.yaml").write_text(GOOD.format(model=file))
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name, *rest: None if name == "gguf" else there(name, *rest))
    assert call("validate", tmp_path / "recipe.yaml") == 2
    said = capfd.readouterr().err
    assert "needs the extra `pretrained` (gguf): pip install 'prunelib[pretrained]'" in " ".join(
        said.split())


def test_a_recipe_runs_on_a_file_and_its_ablation_is_exported(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tiny_gguf.write(source, tmp_path / "m.gguf", "Q8_0")
    (tmp_path / "recipe.yaml").write_text(GOOD.format(model=file).replace(
        "search: {", "search: {nothing: excluded, ") + "controls: {random: 0}\n")
    results, out = tmp_path / "results", tmp_path / "out"
    assert call("run", tmp_path / "recipe.yaml", "--results", results, "--inline") == 0
    sql = prunelib.open_results(results).execute
    assert sql("select distinct revision from models").fetchall() == [
        (describe(str(file)).revision,)]
    (digest,) = sql("select intervention from interventions where role = 'chosen'").fetchone()
    assert call("export", file, "--results", results, "--out", out, "--intervention", digest) == 0
    assert describe(str(out)).layers == 2
    capfd.readouterr()
    tiny_gguf.write(source, file, "Q4_0")
    describe.cache_clear()
    assert call("export", file, "--results", results, "--out", tmp_path / "no",
                "--intervention", digest) == 2
    assert "another GGUF file" in capfd.readouterr().err
