"""The files of a checkpoint: which of them are its weights, and whether they are whole."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prunelib.errors import UserError

#: Beside weights in several files: which tensor is in which of them.
INDEX = "model.safetensors.index.json"
#: Read by transformers before an index, if both are there.
SINGLE = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json",
                    "merges.txt", "special_tokens_map.json", "added_tokens.json",
                    "chat_template.jinja")
#: One of these holds the vocabulary, unless the checkpoint's own code reads another file.
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")
#: Keys of ``config.json``, and files beside it, that only quantised checkpoints have.
_QUANTISED = ("quantization_config", "compression_config")
_QUANTISED_FILES = ("quantize_config.json", "quant_config.json")


def read_config(model_id: str, folder: Path) -> dict[str, Any]:
    """What ``config.json`` says. Raises :class:`UserError` if it cannot be read."""
    return _mapping(model_id, folder / "config.json")


def check_unquantised(model_id: str, folder: Path, config: dict[str, Any]) -> None:
    """Raise :class:`UserError` for weights that are quantised."""
    if any(config.get(key) for key in _QUANTISED) or any(
            (folder / name).is_file() for name in _QUANTISED_FILES):
        raise UserError(f"model '{model_id}' is quantised; use the unquantised checkpoint")


def indexed(model_id: str, folder: Path) -> list[str] | None:
    """Names of the weight files that the index names, or ``None`` without an index.

    Raises :class:`UserError` if the index cannot be read.
    """
    if not (folder / INDEX).is_file():
        return None
    tensors = _mapping(model_id, folder / INDEX).get("weight_map")
    names = set(tensors.values()) if isinstance(tensors, dict) else set()
    if not names or any(not isinstance(n, str) or Path(n).name != n for n in names):
        raise UserError(f"model '{model_id}': {INDEX} in {folder} does not say which tensor is "
                        "in which file beside it")
    return sorted(names | {SINGLE} if (folder / SINGLE).is_file() else names)


def weight_files(model_id: str, folder: Path) -> list[Path]:
    """The files of the weights: those of the index, without one every ``.safetensors`` file.

    Raises :class:`UserError` if there are none, or one of the index is missing.
    """
    named = indexed(model_id, folder)
    if named is None:
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise UserError(f"model '{model_id}' has no .safetensors weights in {folder}")
        return files
    if missing := [name for name in named if not (folder / name).is_file()]:
        raise UserError(f"model '{model_id}' is incomplete: {missing[0]}, which {INDEX} names, is "
                        f"not in {folder}")
    return [folder / name for name in named]


def tensor_names(model_id: str, files: Iterable[Path]) -> set[str]:
    """Names of all tensors, from the headers. Raises :class:`UserError` for a broken file."""
    from safetensors import SafetensorError, safe_open

    names: set[str] = set()
    for file in files:
        try:
            with safe_open(file, framework="numpy") as content:
                names.update(content.keys())
        except (OSError, SafetensorError) as error:
            raise UserError(f"model '{model_id}': {file} is not a whole .safetensors file "
                            f"({error}); fetch it again") from error
    return names


def check_layers(model_id: str, tensors: Iterable[str], stack: str, depth: int) -> None:
    """Raise :class:`UserError` if a layer lacks a tensor that another layer has.

    Layers of every family that is supported are alike. Whether anything else is missing shows
    when the model is loaded: checkpoints may name the same tensors in several ways.

    Args:
        model_id: the model, for the message.
        tensors: names of all tensors of the checkpoint.
        stack: dotted path of the list of layers, whose last part is in the names.
        depth: how many layers the model has.
    """
    place = re.compile(rf"(?:^|\.){re.escape(stack.rpartition('.')[2])}\.(\d+)\.(.+)")
    layers: dict[int, set[str]] = defaultdict(set)
    for name in tensors:
        if found := place.search(name):
            layers[int(found[1])].add(found[2])
    whole = set[str]().union(*layers.values())
    for layer in range(depth) if layers else ():
        if missing := sorted(whole - layers[layer]):
            raise UserError(f"model '{model_id}' is incomplete: layer {layer} of {depth} has no "
                            f"{missing[0]} in its .safetensors files")


def check_loaded(model_id: str, place: Path, found: dict[str, Any]) -> None:
    """Raise :class:`UserError` if a model in memory has weights that are not from its checkpoint.

    Args:
        model_id: the model, for the message.
        place: the checkpoint, for the message.
        found: what transformers tells with ``output_loading_info``.
    """
    # A matrix that is tied to another is not among them.
    if missing := sorted(found["missing_keys"]):
        raise UserError(f"model '{model_id}' is incomplete: its checkpoint in {place} lacks "
                        f"{len(missing)} of its weights, {missing[0]} for one")
    if others := sorted(found["mismatched_keys"]):
        name, there, needed = others[0]
        raise UserError(f"model '{model_id}': {name} is {list(there)} in its checkpoint in "
                        f"{place}, and {list(needed)} by its config.json")
    if found["error_msgs"]:
        raise UserError(f"model '{model_id}' cannot be loaded from {place}: "
                        f"{' '.join(found['error_msgs'][0].split())}")


def tokenizer_files(model_id: str, folder: Path, own_code: bool) -> list[Path]:
    """The files of the tokenizer. Raises :class:`UserError` if there is no vocabulary."""
    needed = (*_VOCABULARIES, "tokenizer_config.json") if own_code else _VOCABULARIES
    if not any((folder / name).is_file() for name in needed):
        raise UserError(f"model '{model_id}' has no tokenizer in {folder}: "
                        f"{', '.join(_VOCABULARIES[:-1])} or {_VOCABULARIES[-1]} is needed")
    return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]


def end_ids(model_id: str, folder: Path, config: dict[str, Any]) -> tuple[int, ...]:
    """Ids of the tokens that end a turn by ``config.json`` and ``generation_config.json``."""
    file = folder / "generation_config.json"
    named: set[int] = set()
    for source in (config, _mapping(model_id, file) if file.is_file() else {}):
        found = source.get("eos_token_id")
        named.update(found if isinstance(found, list) else [] if found is None else [found])
    return tuple(sorted(named))


def _mapping(model_id: str, file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not a mapping")
    except (OSError, ValueError) as error:
        raise UserError(f"model '{model_id}' has no readable {file.name} in {file.parent}"
                        ) from error
    return content
