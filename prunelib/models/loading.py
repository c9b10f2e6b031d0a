"""Loading a model into transformers: safetensors only, its own code only where it is trusted."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prunelib.errors import UserError, one_line
from prunelib.models.adapter import Adapter
from prunelib.models.answers import AnswerPlaces
from prunelib.models.checkpoint import check_loaded
from prunelib.models.info import REFERENCE, ModelInfo, info_of
from prunelib.models.placement import Device, device_map, devices
from prunelib.models.registry import adapter_for
from prunelib.tasks.tokenization import start_with

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Loaded:
    """A model in memory, with its tokenizer and adapter."""

    info: ModelInfo
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    adapter: Adapter
    answers: AnswerPlaces = field(default_factory=AnswerPlaces, compare=False)

    @classmethod
    def of(cls, model: PreTrainedModel) -> Loaded:
        """Any model of transformers, for hooks in its layers; without a tokenizer.

        Raises :class:`UserError` if its architecture is not supported.
        """
        info = info_of(model.config)
        return cls(info, model, cast("Any", None), adapter_for(info.model_type))

    @property
    def device(self) -> torch.device:
        """Where its inputs go and its logits are; layers may be on other devices."""
        return next(self.model.parameters()).device


@functools.cache
def load_tokenizer(info: ModelInfo) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, read once per process.

    Raises :class:`UserError` if its files cannot be read.
    """
    try:
        if _plain(info):
            from transformers import PreTrainedTokenizerFast

            tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(info.path)
        else:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(
                info.path, trust_remote_code=info.trust_remote_code)
    except Exception as error:  # of many kinds, some of them from Rust
        raise UserError(f"model '{info.id}' has no readable tokenizer in {info.path}: "
                        f"{one_line(error)}") from error
    if info.bos != "auto":
        if tokenizer.bos_token_id is None:
            raise UserError(f"model '{info.id}': its tokenizer has no start token: leave out "
                            f"bos: {info.bos}")
        start_with(tokenizer, always=info.bos == "always")
    return cast("PreTrainedTokenizerBase", tokenizer)


@functools.cache
def checking_tokenizer(info: ModelInfo) -> Any:
    """What has a text's ``input_ids``, for checks before any work.

    The tokenizer, but those of the shipped models without transformers, which takes seconds to
    import.
    """
    if Path(info.path).parent != REFERENCE or info.bos != "auto":
        return load_tokenizer(info)
    from tokenizers import Tokenizer

    plain = Tokenizer.from_file(str(Path(info.path) / "tokenizer.json"))

    def encode(text: str, add_special_tokens: bool = True, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": plain.encode(text, add_special_tokens=add_special_tokens).ids}

    return encode


def _plain(info: ModelInfo) -> bool:
    """Whether a tokenizer is nothing but its ``tokenizer.json``, by its own word.

    That one class is imported without torch.
    """
    file = Path(info.path) / "tokenizer_config.json"
    known = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return (known.get("tokenizer_class") in ("TokenizersBackend", "PreTrainedTokenizerFast")
            and "auto_map" not in known and (file.parent / "tokenizer.json").is_file())


def load_weights(
    info: ModelInfo, dtype: Any, over: Sequence[Device] = ("cpu",)
) -> PreTrainedModel:
    """A model whose every weight is from its checkpoint, in a ``torch`` dtype or ``"auto"``.

    Its layers are spread ``over`` devices. Raises :class:`UserError` if a weight is missing or has
    another shape: transformers would put random numbers in its place.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    kind: Any = AutoModelForCausalLM  # its annotations know nothing of output_loading_info
    model, found = kind.from_pretrained(
        info.path,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=info.trust_remote_code,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # so that it is we who say so
        device_map=device_map(info, over) if len(over) > 1 else None,
    )
    check_loaded(info.id, Path(info.path), found)
    return cast("PreTrainedModel", model)


def load(
    info: ModelInfo, dtype: str = "float32", over: Sequence[Device] | None = None
) -> Loaded:
    """Load a model for attribution or evaluation, frozen.

    Its layers are spread ``over`` devices (:mod:`prunelib.models.placement`); by default it is on
    the first GPU, or on the CPU if there is none. Raises :class:`UserError` if its checkpoint is
    incomplete.
    """
    import torch
    from transformers import GenerationConfig

    over = devices(1) if over is None else over
    model = load_weights(info, getattr(torch, dtype), over)
    # A checkpoint may bring a repetition penalty or other stop ids: greedy means greedy.
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    placed: Any = model
    if len(over) == 1:
        placed.to(over[0])
    placed.eval().requires_grad_(False)
    return Loaded(info, model, load_tokenizer(info), adapter_for(info.model_type))
