"""Small GGUF files, written from a small Llama as llama.cpp writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from prunelib.reference.corpus import vocabulary

HEADS, KV_HEADS = 4, 2
_TENSORS = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
_ELSEWHERE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def build_source(folder: Path, tied: bool = True, dtype: torch.dtype = torch.float32) -> Path:
    """A random Llama with grouped keys and byte-level BPE, in the hub's layout."""
    torch.manual_seed(0)
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    own.train_from_iterator(sorted(vocabulary()), trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, unk_token="<unk>", bos_token="<s>",
                                        eos_token="</s>")
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=256,
        initializer_range=0.3, bos_token_id=1, eos_token_id=2, tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0})
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _rotated(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of queries or keys in the order of llama.cpp, which turns neighbouring pairs."""
    return (weight.reshape(heads, 2, -1, weight.shape[-1]).swapaxes(1, 2)
            .reshape(weight.shape))


def tensors(source: Path) -> dict[str, torch.Tensor]:
    """The weights of a model by the names that GGUF files give them, in float32."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    found = {}
    for name, weight in model.state_dict().items():
        module = name.removesuffix(".weight")
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        if module in _ELSEWHERE:
            found[f"{_ELSEWHERE[module]}.weight"] = weight
            continue
        layer, _, place = module.removeprefix("model.layers.").partition(".")
        if place.endswith(("q_proj", "k_proj")):
            weight = _rotated(weight, HEADS if "q_proj" in place else KV_HEADS)
        found[f"blk.{layer}.{_TENSORS[place]}.weight"] = weight
    return found


def write(source: Path, file: Path, kind: str = "F32", arch: str = "llama",
          weights: dict[str, torch.Tensor] | None = None, **extra: Any) -> Path:
    """Write a GGUF file whose matrices have a number format such as ``F16`` or ``Q8_0``.

    ``extra`` are further keys of its metadata, with ``__`` for dots; None leaves one out.
    """
    config = LlamaConfig.from_pretrained(source)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(source)
    state = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer = gguf.GGUFWriter(file, arch)
    values: dict[str, Any] = {
        f"{arch}.block_count": config.num_hidden_layers,
        f"{arch}.context_length": config.max_position_embeddings,
        f"{arch}.embedding_length": config.hidden_size,
        f"{arch}.feed_forward_length": config.intermediate_size,
        f"{arch}.attention.head_count": HEADS, f"{arch}.attention.head_count_kv": KV_HEADS,
        f"{arch}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{arch}.rope.freq_base": 5000.0,
        f"{arch}.rope.dimension_count": config.hidden_size // HEADS,
        f"{arch}.vocab_size": config.vocab_size,
        "general.name": "tiny", "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    } | {name.replace("__", "."): value for name, value in extra.items()}
    for name, value in values.items():
        if value is not None:
            kinds = {bool: writer.add_bool, str: writer.add_string, float: writer.add_float32,
                     int: writer.add_uint32}
            kinds[type(value)](name, value)
    tokens = sorted(state["vocab"], key=state["vocab"].__getitem__)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if i < 3 else 1 for i in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in state["merges"]])
    quantised = gguf.GGMLQuantizationType[kind]
    for name, weight in (weights or tensors(source)).items():
        matrix = weight.dim() == 2
        raw = weight.numpy()
        writer.add_tensor(name, gguf.quants.quantize(raw, quantised) if matrix else raw,
                          raw_dtype=quantised if matrix else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
