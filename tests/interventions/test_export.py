"""Pruned checkpoints: transformers and vLLM compute what an engine does under the ablation."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_families import FAMILIES, build_family
from tiny_llama import Oracle, start_here
from transformers import AutoModelForCausalLM, AutoTokenizer

from prunelib.components import Component
from prunelib.errors import UserError
from prunelib.interventions.ablation import Ablation, ActivationMasks
from prunelib.interventions.export import export
from prunelib.models import ModelInfo, adapter_for, describe, load

PROMPT = [1, 20, 21, 22, 23, 24, 25]
#: What a user writes who has never heard of prunelib: one vLLM after another, on texts.
PLAIN_VLLM = """
import json, sys
import torch
from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory

torch.set_num_threads(1)
texts, folders = json.loads(sys.argv[1]), sys.argv[2:]
said = {}
for folder in folders:
    llm = LLM(folder, dtype="float32", enforce_eager=True)
    outputs = llm.generate(texts, SamplingParams(temperature=0, max_tokens=1, logprobs=5,
                                                 prompt_logprobs=0), use_tqdm=False)
    said[folder] = [{
        "ids": output.prompt_token_ids,
        "prompt": [at[token].logprob for at, token in zip(
            output.prompt_logprobs[1:], output.prompt_token_ids[1:], strict=True)],
        "next": {token: at.logprob for token, at in output.outputs[0].logprobs[0].items()},
    } for output in outputs]
    llm.llm_engine.engine_core.shutdown()
    del llm
    cleanup_dist_env_and_memory()
assert not [name for name in sys.modules if name.split(".")[0] == "prunelib"]
print(json.dumps(said))
"""
TEXTS = ["cat->cats\ndog->", "ab, cd ->", "The river runs fastest in the middle, just below"]


def some(info: ModelInfo) -> Ablation:
    return Ablation.of([*Ablation.of_layer(0, range(0, info.width, 3), info.site).components,
                        *Ablation.of_layer(1, range(5), info.site).components])


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
    about = json.loads((folder / "intervention.json").read_text())
    assert about["weights_digest"] == info.weights_digest
    assert about["intervention"] == ablation.digest
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


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")
def test_plain_vllm_says_what_plain_transformers_says(tmp_path: Path) -> None:
    """In a process where nothing imports prunelib, so with no worker extension of ours."""
    folders = {}
    for family in ("llama", "gpt2", "opt"):
        info = build_family(family, tmp_path / "whole" / family)
        folders[str(export(info, some(info), tmp_path / family))] = info
    # As VllmEngine sets them: little memory, one process, threads that are not bound.
    settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1",
                "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_LOGGING_STREAM": "ext://sys.stderr"}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", PLAIN_VLLM, json.dumps(TEXTS), *folders], cwd=tmp_path,
        env=environment | settings, text=True, capture_output=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    for folder, said in json.loads(done.stdout.splitlines()[-1]).items():
        pruned, whole = (AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
                         for path in (folder, folders[folder].path))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for text, found in zip(TEXTS, said, strict=True):
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            assert found["ids"] == ids[0].tolist()
            with torch.inference_mode():
                expected, untouched = (model(ids).logits[0].log_softmax(-1)
                                       for model in (pruned, whole))
            of_prompt = expected[:-1].gather(1, ids[0, 1:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(found["prompt"]), of_prompt, rtol=0, atol=1e-4)
            after = [int(token) for token in found["next"]]
            assert set(expected[-1].topk(5).indices.tolist()) == set(after)
            torch.testing.assert_close(torch.tensor(list(found["next"].values())),
                                       expected[-1, after], rtol=0, atol=1e-4)
            assert (expected - untouched).abs().max() > 1e-2


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
        export(found, Ablation.of_layer(0, [10_000]), tmp_path / "other")
    assert not (tmp_path / "other").exists()
