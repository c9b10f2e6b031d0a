"""A tiny random Llama, what it must answer, and starting engines on it."""

from __future__ import annotations

import copy
import importlib.util
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from prunelib.engines.base import Engine
from prunelib.engines.registry import start
from prunelib.interventions.ablation import Ablation
from prunelib.models import ModelInfo, adapter_for, describe
from prunelib.models.adapter import output_dim
from prunelib.reference.corpus import vocabulary
from prunelib.reference.tokenizer import build_tokenizer
from prunelib.tasks.tokenization import Encoded

LAYERS, WIDTH, CONTEXT = 2, 48, 256


def build(folder: Path, seed: int = 0) -> ModelInfo:
    """A random Llama with weights so large that every ablation changes what it says."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary()),
        hidden_size=64,
        intermediate_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return describe(str(folder))


class Oracle:
    """Plain transformers: zeroed weights, one argmax at a time, no padding, no hooks."""

    def __init__(self, info: ModelInfo) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(info.path, dtype=torch.float32).eval()
        self.adapter = adapter_for(info.model_type)

    def ablated(self, ablation: Ablation) -> Any:
        model = copy.deepcopy(self.model)
        for layer, site, index in ((c.layer, c.site, c.index) for c in ablation.components):
            block = self.adapter.layers(model)[layer]
            if site == "head":
                out = block.get_submodule(self.adapter.heads.out)
                weight = out.weight.data if output_dim(out) else out.weight.data.T
                weight.unflatten(0, (model.config.num_attention_heads, -1))[index].zero_()
                continue
            if site == "mlp_row":
                scaled = block.get_submodule(self.adapter.hidden[0])
                scaled.weight.data.select(output_dim(scaled), index).zero_()
                continue
            projection = block.get_submodule(self.adapter.switched)
            if site == "ffn":
                for parameter in projection.parameters():
                    parameter.data.zero_()
                continue
            dim = output_dim(projection)
            if site == "mlp_hidden":
                dim = 1 - dim
            elif projection.bias is not None:
                projection.bias.data[index] = 0
            projection.weight.data.select(dim, index).zero_()
        return model

    @torch.inference_mode()
    def logprobs(self, ablation: Ablation, ids: Sequence[int]) -> torch.Tensor:
        """Next-token log-probabilities ``[vocabulary]``."""
        logits = self.ablated(ablation)(torch.tensor([list(ids)])).logits[0, -1]
        return logits.log_softmax(-1)

    @torch.inference_mode()
    def greedy(
        self, ablation: Ablation, ids: Sequence[int], tokens: int, stops: Sequence[int]
    ) -> tuple[int, ...]:
        """Greedy continuation by one full forward pass per token."""
        model, answer = self.ablated(ablation), []
        for _ in range(tokens):
            token = int(model(torch.tensor([[*ids, *answer]])).logits[0, -1].argmax())
            if token in stops:
                break
            answer.append(token)
        return tuple(answer)


def start_here(kind: str, info: ModelInfo) -> Engine:
    """An engine in this process, on one thread: more only wait for each other on a tiny model."""
    if kind == "vllm":
        if importlib.util.find_spec("vllm") is None:
            pytest.skip("vllm is not installed")
        _look_here()
    torch.set_num_threads(1)
    return start(kind, info)


def _look_here() -> None:
    """Let vLLM, once it is imported, look at the class of a family in this process.

    It starts a process for that, to keep CUDA out of this one, where all of it runs here anyway;
    on a new machine that takes ten seconds for each family.
    """
    if registry := sys.modules.get("vllm.model_executor.models.registry"):
        registry._run_in_subprocess = lambda look: look()  # type: ignore[attr-defined]


def random_prompts(count: int, shortest: int, longest: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Prompts of random characters and random lengths, each beginning with ``<s>``."""
    rng = random.Random(seed)
    return [
        (1, *(rng.randrange(4, len(vocabulary())) for _ in range(rng.randint(shortest, longest))))
        for _ in range(count)
    ]


def with_answers(prompts: Sequence[tuple[int, ...]]) -> list[Encoded]:
    """Prompts with made-up answers: three different copies, one, and none but the gold answer."""
    answers = [((6,), (7, 9), (8,)), ((6, 8), (5, 7), (6,)), ((5, 6),)]
    return [Encoded(p, (5, 9), answers[i % 3]) for i, p in enumerate(prompts)]
