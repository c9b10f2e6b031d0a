"""GGUF files as model folders: converted once, into a cache, with the weights dequantised.

What comes of it is a folder in the layout of the Hugging Face hub, which transformers and vLLM read
like any other. Quantised weights become bfloat16; others keep their number format. A file is
identified by the SHA-256 of its bytes, wherever it is and whatever it is called.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelib.errors import UserError, one_line, shown
from prunelib.models.checkpoint import check_loaded
from prunelib.models.registry import adapter_for

if TYPE_CHECKING:
    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)

#: Raised when the same file is to be converted otherwise: what was made before counts no more.
_VERSION = 1
_NEEDED = ("gguf", "accelerate")
#: Tensors of stretched positions, which transformers leaves out.
_STRETCHED = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
#: Tokenizers of byte-level BPE (key ``tokenizer.ggml.pre``) at which llama.cpp begins texts with
#: the start token unless the file says otherwise; of others, those of SentencePiece and WordPiece.
_BEGIN_BPE = {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0",
              "lfm2", "jina-v5-nano", "tekken", "chameleon"}
_BEGIN = {"llama", "bert", "gemma4"}


def cache() -> Path:
    """The folder of what prunelib keeps between runs: ``$XDG_CACHE_HOME/prunelib``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prunelib"


def made_from(sha256: str) -> Path:
    """Where the model folder of a GGUF file is once it has been made."""
    return cache() / "gguf" / f"{sha256}-{_VERSION}"


def check_sha256(model_id: str, sha256: str, expected: str | None) -> None:
    """Raise :class:`UserError` if a GGUF file is not the one that a revision says."""
    if expected not in (None, sha256):
        raise UserError(f"model '{model_id}' is another GGUF file than its revision says, which "
                        f"is a SHA-256: {sha256}, not {shown(expected)}")


def model_folder(model_id: str, file: Path, expected: str | None = None) -> tuple[Path, str]:
    """The model folder of a GGUF file and the file's SHA-256; converted if it was not before.

    Args:
        model_id: the model, for messages.
        file: the GGUF file.
        expected: its SHA-256, if it must have a certain one.

    Raises:
        UserError: there is no such file, it is another one, it cannot be converted, or what is
            needed for that is not installed.
    """
    if not file.is_file():
        raise UserError(f"model file '{model_id}' does not exist")
    with file.open("rb") as content:
        if content.read(4) != b"GGUF":
            raise UserError(f"model '{model_id}' is no GGUF file: it does not begin with GGUF")
        content.seek(0)
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    check_sha256(model_id, sha256, expected)
    folder = made_from(sha256)
    if folder.is_dir():
        return folder, sha256
    check_extra(f"model '{model_id}'")
    logger.warning("%s: converting the GGUF file into %s, once; this takes a minute or more",
                   model_id, folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
            made = Path(scratch) / "model"
            _convert(model_id, file, made)
            _publish(made, folder)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"model '{model_id}' cannot be converted into {folder.parent}: "
                        f"{one_line(error)}") from error
    return folder, sha256


def check_extra(what: str) -> None:
    """Raise :class:`UserError` if what reads GGUF files is not installed."""
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise UserError(f"{what} needs the extra `pretrained` ({' and '.join(missing)}): "
                        "pip install 'prunelib[pretrained]'")


def _publish(made: Path, folder: Path) -> None:
    """Let a finished folder appear in one step, unless another process was first."""
    for file in made.iterdir():
        with file.open("rb") as content:
            os.fsync(content.fileno())
    try:
        made.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _convert(model_id: str, file: Path, out: Path) -> None:
    """Write the model folder of a GGUF file. Raises :class:`UserError`."""
    try:
        reader = _read(file)
        known = {name: field.contents() for name, field in reader.fields.items()
                 if name not in ("tokenizer.ggml.tokens", "tokenizer.ggml.merges",
                                 "tokenizer.ggml.scores", "tokenizer.ggml.token_type")}
        tensors = {str(t.name): (t.tensor_type.name, int(t.n_elements)) for t in reader.tensors}
    except Exception as error:  # of many kinds, where a file is damaged or cut off
        raise UserError(f"model '{model_id}' is not a whole GGUF file ({one_line(error)}); fetch "
                        "it again") from error
    _check(model_id, known, tensors)
    try:
        _save_model(model_id, file, out, known, tensors)
        _save_tokenizer(file, out, known)
    except UserError:
        raise
    except OSError:  # of the disk
        raise
    except Exception as error:  # transformers refuses with errors of many kinds
        raise UserError(f"model '{model_id}': transformers cannot read this GGUF file: "
                        f"{one_line(error)}") from error


def _read(file: Path) -> Any:
    from gguf import GGUFReader

    return GGUFReader(file)


def _check(model_id: str, known: dict[str, Any], tensors: dict[str, tuple[str, int]]) -> None:
    """Raise :class:`UserError` for what would be read wrongly, and nobody would see it."""
    kind = known["general.architecture"]
    if known.get("split.count", 1) > 1:
        raise UserError(f"model '{model_id}' is one of {known['split.count']} parts of a model: "
                        "merge them first, with llama-gguf-split --merge")
    if known.get(f"{kind}.expert_count"):
        raise UserError(f"model '{model_id}' is a mixture of experts, which is not supported: its "
                        "neurons are not the same for every token")
    scaling = known.get(f"{kind}.rope.scaling.type", "none")
    if scaling != "none" or any(name in tensors for name in _STRETCHED):
        raise UserError(f"model '{model_id}' stretches its positions (rope scaling), which "
                        "transformers does not read from a GGUF file: use its checkpoint in "
                        ".safetensors files")


def _save_model(model_id: str, file: Path, out: Path, known: dict[str, Any],
                tensors: dict[str, tuple[str, int]]) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
    from transformers.utils.logging import disable_progress_bar
    from transformers.utils.quantization_config import GgufConfig

    disable_progress_bar()  # type: ignore[no-untyped-call]
    adapter = adapter_for(AutoConfig.from_pretrained(file.parent, gguf_file=file.name).model_type)
    formats = {kind for kind, _ in tensors.values()}
    plain = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
    # Matrices decide: vectors are always float32 in such files.
    dtype = torch.bfloat16 if formats - plain.keys() else next(
        plain[name] for name in plain if name in formats)
    kind: Any = AutoModelForCausalLM  # its annotations know nothing of output_loading_info
    model, found = kind.from_pretrained(
        file.parent, gguf_file=file.name, dtype=dtype, output_loading_info=True,
        quantization_config=GgufConfig(dequantize=True))
    check_loaded(model_id, file, found)
    read = sum(p.numel() for p in model.parameters())
    tied = model.config.tie_word_embeddings
    there = sum(count for name, (_, count) in tensors.items()
                if not (tied and name == "output.weight"))
    if read != there:
        raise UserError(f"model '{model_id}': transformers reads {read:,} of the {there:,} numbers "
                        f"of this GGUF file ({adapter.model_types[0]}): use its checkpoint in "
                        ".safetensors files")
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    ids = {name: known.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "eot")}
    ends = sorted({int(i) for i in (ids["eos"], ids["eot"]) if i is not None})
    model.config.bos_token_id = ids["bos"]
    model.config.eos_token_id = ends[0] if len(ends) == 1 else ends or None
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=ids["bos"], eos_token_id=model.config.eos_token_id)
    model.save_pretrained(out)


def _save_tokenizer(file: Path, out: Path, known: dict[str, Any]) -> None:
    """Write the tokenizer, as one that is nothing but its ``tokenizer.json``.

    Other classes make rules of their own when they are read.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    theirs: Any = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    special = {name: value for name, value in theirs.special_tokens_map.items()
               if isinstance(value, str)}
    _begin(theirs.backend_tokenizer, theirs.bos_token, _begins(known))
    kind: Any = PreTrainedTokenizerFast  # it has no annotations
    saved = kind(
        tokenizer_object=theirs.backend_tokenizer, chat_template=theirs.chat_template,
        clean_up_tokenization_spaces=False, **special)
    saved.save_pretrained(out)


def _begins(known: dict[str, Any]) -> bool:
    """Whether texts begin with the start token.

    ``tokenizer.ggml.add_bos_token`` says so; without it, what llama.cpp does for the kind of
    tokenizer (``llama_vocab::impl::load`` in its ``src/llama-vocab.cpp``).
    """
    said = known.get("tokenizer.ggml.add_bos_token")
    if said is not None:
        return bool(said)
    kind = known.get("tokenizer.ggml.model")
    return kind in _BEGIN or (kind == "gpt2" and known.get("tokenizer.ggml.pre") in _BEGIN_BPE)


def _begin(tokenizer: Tokenizer, start: str | None, wanted: bool) -> None:
    """Let a tokenizer put its start token in front of texts, and nothing else around them."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.post_processor = TemplateProcessing(
        single=[start, "$A"], pair=[start, "$A", start, "$B:1"],
        special_tokens=[(start, tokenizer.token_to_id(start))],
    ) if wanted and start is not None else None
