"""Pruned checkpoints: transformers and vLLM compute what an engine does under the ablation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_families import FAMILIES, build_family
from tiny_llama import Oracle, start_here
from transformers import AutoModelForCausalLM, AutoTokenizer

from prunelib.components import Ablation, Component
from prunelib.errors import UserError
from prunelib.interventions.export import export
from prunelib.interventions.masking import ActivationMasks
from prunelib.models import ModelInfo, adapter_for, describe, load

PROMPT = [1, 20, 21, 22, 23, 24, 25]


def some(info: ModelInfo) -> Ablation:
    return Ablation.of([*Ablation.units(0, range(0, info.width, 3), info.site).components,
                        *Ablation.units(1, range(5), info.site).components])


def one_of_each(info: ModelInfo) -> Ablation:
    """A component of every site, the FFN alone in the first layer."""
    return Ablation.of(Component(0 if site == "ffn" else 1, site, 0)
                       for site in adapter_for(info.model_type).sites)


@pytest.mark.parametrize("made", [some, one_of_each])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_masked_model(
    family: str, made: Callable[[ModelInfo], Ablation], tmp_path: Path
) -> None:
    info = build_family(family, tmp_path / "whole")
    ablation = made(info)
    folder = export(info, ablation, tmp_path / "new" / "pruned")
    pruned = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    AutoTokenizer.from_pretrained(folder)
    loaded, ids = load(info), torch.tensor([PROMPT])
    with torch.no_grad(), ActivationMasks(loaded) as masks:
        whole = loaded.model(ids).logits
        masks.set(ablation)
        masked = loaded.model(ids).logits
        exported = pruned(ids).logits
    torch.testing.assert_close(exported, masked, rtol=0, atol=1e-5)
    assert (exported - whole).abs().max() > 1e-5
    about = json.loads((folder / "ablation.json").read_text())
    assert (about["weights_digest"], about["ablation"]) == (info.weights_digest, ablation.digest)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["pruned"]


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_loads_it(info: ModelInfo, oracle: Oracle, tmp_path: Path) -> None:
    ablation = some(info)
    engine = start_here("vllm", describe(str(export(info, ablation, tmp_path / "pruned"))))
    found = engine.logprobs([PROMPT], [list(range(4, 20))])[0]
    engine.close()
    expected = oracle.logprobs(ablation, PROMPT)[4:20]
    torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-4)


def test_dtype_stays_and_nothing_is_overwritten(info: ModelInfo, tmp_path: Path) -> None:
    half = AutoModelForCausalLM.from_pretrained(info.path, dtype=torch.float16)
    half.save_pretrained(tmp_path / "half")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "half" / name).write_bytes((Path(info.path) / name).read_bytes())
    found = describe(str(tmp_path / "half"))
    out = export(found, some(found), tmp_path / "pruned")
    assert AutoModelForCausalLM.from_pretrained(out, dtype="auto").dtype == torch.float16
    with pytest.raises(UserError, match="exists: give a new folder"):
        export(found, some(found), out)
    with pytest.raises(UserError, match="is not in a model"):
        export(found, Ablation.units(0, [10_000]), tmp_path / "other")
    assert not (tmp_path / "other").exists()
