"""The files of a checkpoint cannot choose code, nor a repository to take some from."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer

from prunelib.engines.limits import ENDLESS, model_limits
from prunelib.errors import UserError
from prunelib.models import ModelInfo, adapter_for, describe, reference_models
from prunelib.models.loading import checking_tokenizer, load_tokenizer


@pytest.fixture
def folder(info: ModelInfo, tmp_path: Path) -> Path:
    return Path(shutil.copytree(info.path, tmp_path / "model"))


def edit(file: Path, **changes: object) -> None:
    known = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(known | changes))


@pytest.mark.parametrize(("file", "changes"), [
    ("config.json", {"_attn_implementation": "kernels-community/flash-attn"}),
    ("config.json", {"attn_implementation": "owner/kernel@main:function"}),
    ("config.json", {"_attn_implementation": {"text_config": "owner/kernel"}}),
    ("config.json", {"text_config": {"_attn_implementation": "owner/kernel"}}),
    ("config.json", {"_attn_implementation": "flash_attention_9"}),
    ("config.json", {"_experts_implementation": "owner/kernel"}),
    ("config.json", {"kernel_config": {"RMSNorm": "owner/kernel:RMSNorm"}}),
    ("generation_config.json", {"custom_generate": "owner/code"}),
    ("tokenizer_config.json", {"custom_generate": "owner/code"}),
    ("adapter_config.json", {"base_model_name_or_path": "owner/model"}),
])
@pytest.mark.parametrize("trust", [False, True])
def test_a_key_that_chooses_code_is_refused(
    file: str, changes: dict[str, object], trust: bool, folder: Path
) -> None:
    edit(folder / file, **changes)
    with pytest.raises(UserError, match=r"chooses code from elsewhere|is an adapter") as caught:
        describe(str(folder), trust_remote_code=trust)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [
    {"_attn_implementation": "eager"}, {"attn_implementation": None}, {"conv_kernel": 4},
    {"_name_or_path": "owner/model"}, {"use_mamba_kernels": True},
])
def test_what_chooses_no_code_is_no_matter(changes: dict[str, object], folder: Path) -> None:
    edit(folder / "config.json", **changes)
    assert describe(str(folder)).layers == 2


@pytest.mark.parametrize("name", reference_models())
def test_a_shipped_model_is_read_without_transformers_as_with_it(name: str) -> None:
    info = describe(name)
    parsed, adapter = AutoConfig.from_pretrained(info.path), adapter_for(info.model_type)
    assert (info.layers, info.width, info.stream) == (
        parsed.num_hidden_layers, adapter.width(parsed), parsed.hidden_size)
    assert info.mlp_bias == adapter.bias(parsed) and adapter.refusal(parsed) is None
    if adapter.heads:
        assert (info.heads, info.head_size) == (
            adapter.heads.count(parsed), adapter.heads.size(parsed))
    context = getattr(parsed, "max_position_embeddings", None) or ENDLESS
    assert model_limits(info) == (context, parsed.vocab_size)
    plain, usual = load_tokenizer(info), AutoTokenizer.from_pretrained(info.path)
    assert type(plain) is type(usual) and plain.special_tokens_map == usual.special_tokens_map
    text = "cat->cats, ÄŚ 字\n  dog->"
    assert plain(text)["input_ids"] == usual(text)["input_ids"] == checking_tokenizer(info)(text)[
        "input_ids"]


def test_validate_imports_nothing_heavy_for_models_that_ship() -> None:
    recipe = Path(__file__).parents[2] / "jobs" / "recipes" / "demo.yaml"
    code = ("import sys; from prunelib.pipeline.driver import checked; "
            f"checked({str(recipe)!r}); "
            "heavy = ('transformers', 'torch', 'ray', 'vllm', 'scipy', 'pandas'); "
            "print([m for m in heavy if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
