"""How much memory of GPUs a worker takes: what the cluster books, and what a plan says."""

from __future__ import annotations

from prunelib.attribution.integrated_gradients import PATH_ROWS
from prunelib.models import ModelInfo
from prunelib.pipeline.units.unit import WorkerRole
from prunelib.pipeline.units.worker import MAX_BATCH_HALVINGS

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
#: Tokens of a prompt for which gradients are planned. Longer ones have their batches halved.
PROMPT_TOKENS = 100
#: Weights, and caches and buffers beside them, as a multiple of the weights.
_MARGIN = 1.2


def weight_bytes(info: ModelInfo, dtype: str) -> int:
    """Bytes of the weights in memory.

    Checkpoints have two bytes per parameter, nearly all of them.
    """
    return info.bytes // 2 * DTYPE_BYTES[dtype]


def activation_bytes(info: ModelInfo, dtype: str, tokens: int) -> int:
    """Bytes that autograd keeps of a forward pass through all layers, for so many tokens.

    Of a token in a layer: what both norms read, in float32; queries, keys, values and what
    attention gives; gate, its activation and up. Frozen weights keep nothing of their inputs.
    Counted on the reference models it is 1.02 to 1.04 times as much in a Llama, 1.1 to 1.3 times in
    a GPT-2, 0.5 to 0.7 times in OPT and BLOOM, and 2 to 3 times in a Mamba on a CPU.
    """
    size = DTYPE_BYTES[dtype]
    return tokens * info.layers * (info.stream * (8 + 4 * size) + 3 * info.width * size)


def gpu_bytes(info: ModelInfo, dtype: str, role: WorkerRole) -> int:
    """Bytes that a worker takes of all its GPUs together.

    For gradients that is a batch that was halved as often as it can be: more is faster, less is
    out of memory.
    """
    taken = int(weight_bytes(info, dtype) * _MARGIN)
    if role == "torch":
        tokens = (PATH_ROWS >> MAX_BATCH_HALVINGS) * PROMPT_TOKENS
        taken += activation_bytes(info, dtype, tokens)
    return taken


def gpus_for(taken: int, each: int, role: WorkerRole) -> int:
    """GPUs of ``each`` bytes (0: unknown, then one) that hold ``taken`` bytes.

    A power of two for vLLM, by which attention heads can be divided; layers can be spread over
    any number.
    """
    gpus = 1
    while each and taken > gpus * each:
        gpus = gpus * 2 if role == "vllm" else gpus + 1
    return gpus
