"""Both engines behind one fixture."""

from __future__ import annotations

from collections.abc import Iterator

import opt_data
import pytest
import torch
from tiny_llama import start_here
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2TokenizerFast, OPTConfig, OPTForCausalLM

from prunelib.engines.base import Engine
from prunelib.models import ModelInfo, describe

KINDS = ["transformers", pytest.param("vllm", marks=pytest.mark.vllm)]


@pytest.fixture(scope="module", params=KINDS)
def engine(request: pytest.FixtureRequest, info: ModelInfo) -> Iterator[Engine]:
    """Each engine in turn, started once per module."""
    engine = start_here(request.param, info)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def opt(tmp_path_factory: pytest.TempPathFactory) -> ModelInfo:
    """A tiny random OPT that reads bytes and words of the test's own rows."""
    folder = tmp_path_factory.mktemp("tiny-opt")
    words = ByteLevelBPETokenizer()
    texts = [repr(row) for *_, rows in opt_data.TASKS.values() for row in rows]
    words.train_from_iterator(texts, vocab_size=700, special_tokens=["</s>"])
    words.save_model(str(folder))
    GPT2TokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"), bos_token="</s>",
                      eos_token="</s>", unk_token="</s>", pad_token="</s>").save_pretrained(folder)
    torch.manual_seed(3)
    OPTForCausalLM(OPTConfig(
        vocab_size=words.get_vocab_size(), hidden_size=32, word_embed_proj_dim=32, ffn_dim=64,
        num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=512, init_std=0.3,
        pad_token_id=0, bos_token_id=0, eos_token_id=0)).save_pretrained(folder)
    return describe(str(folder))
