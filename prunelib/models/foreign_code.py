"""Whether the files of a checkpoint name code, or a repository, from which they would take some."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prunelib.errors import UserError, shown

#: Files of a checkpoint that transformers and vLLM take settings from.
_FILES = ("config.json", "generation_config.json", "tokenizer_config.json")
#: Implementations of attention and of experts that are part of transformers itself.
KNOWN = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4",
         "flex_attention", "grouped_mm", "batched_mm")
#: Keys that name code whatever their value is.
_CODE = ("custom_generate", "custom_pipelines")


def check_no_foreign_code(model_id: str, folder: Path) -> None:
    """Raise :class:`UserError` if a file of a checkpoint chooses code that is not beside it.

    Trusting the code beside the weights does not change that: code from elsewhere is no part of
    what identifies the model. ``auto_map``, which names code beside the weights, is no concern
    here: nobody reads it unless that code is trusted.
    """
    for name in _FILES:
        try:
            content = json.loads((folder / name).read_text("utf-8"))
        except (OSError, ValueError):
            continue  # not there, or refused by whoever needs it
        for key, value in _foreign(content):
            raise UserError(f"model {shown(model_id)}: {name} chooses code from elsewhere "
                            f"({key}: {shown(value)}): take that line out")
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"model {shown(model_id)} is an adapter of another model "
                        "(adapter_config.json): merge it into that model first")


def _foreign(content: Any) -> Iterator[tuple[str, Any]]:
    """Keys at any depth that name code, with their values."""
    if isinstance(content, list):
        for part in content:
            yield from _foreign(part)
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        named = str(key).lower()
        if named.endswith("implementation") or named.endswith("implementation_internal"):
            chosen = list(value.values()) if isinstance(value, dict) else [value]
            if any(one is not None and one not in KNOWN for one in chosen):
                yield key, value
        elif (named in _CODE and value) or ("kernel" in named and isinstance(value, str | dict)):
            yield key, value
        else:
            yield from _foreign(value)
