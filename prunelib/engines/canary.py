"""Canaries: whether an engine answers one prompt as the model under an intervention must."""

from __future__ import annotations

from collections.abc import Sequence

from prunelib.engines.base import Canary
from prunelib.errors import EngineDeadError

#: Natural-log units by which two implementations of one model may differ, per dtype.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.15, "float16": 0.15}


def check_canary(canary: Canary, answer: Sequence[float], dtype: str) -> None:
    """Raise :class:`EngineDeadError` if an engine's answer is not the canary's.

    Args:
        canary: the prompt, its candidates and what transformers computed for them.
        answer: the engine's log-probabilities of the same candidates.
        dtype: the engine's dtype, which decides the tolerance.
    """
    gaps = [abs(a - b) for a, b in zip(canary.logprobs, answer, strict=True)]
    # Written so that a NaN counts as a mismatch.
    if not all(gap <= TOLERANCE[dtype] for gap in gaps):
        raise EngineDeadError(
            f"the canary does not agree: log-probabilities differ by up to {max(gaps):.3g}, "
            f"{TOLERANCE[dtype]} is allowed in {dtype}; the engine runs other weights"
        )
