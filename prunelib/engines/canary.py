"""Canaries: whether an engine answers one prompt as the model under an intervention must."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from prunelib.engines.base import Canary
from prunelib.errors import EngineDeadError
from prunelib.interventions.ablation import Ablation
from prunelib.interventions.steering import Steering

log = logging.getLogger(__name__)

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


class CanaryMemory:
    """What the engine's own canary answered under each intervention.

    Args:
        tolerance: how far an answer under the same intervention may be from the first one; zero
            where the arithmetic is the same every time.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._answers: dict[str, list[float]] = {}
        self._last: tuple[str, list[float]] | None = None

    def check(self, intervention: Ablation | Steering, answer: list[float]) -> None:
        """Compare with what is remembered; raise :class:`EngineDeadError` if it differs."""
        before = self._answers.setdefault(intervention.digest, answer)
        gap = max(abs(a - b) for a, b in zip(before, answer, strict=True))
        if not gap <= self._tolerance:
            raise EngineDeadError(
                f"{intervention.kind} {intervention.digest} no longer gives the same "
                f"log-probabilities: they differ by up to {gap:.3g}"
            )
        if len(intervention) and self._last is not None:
            digest, last = self._last
            if digest != intervention.digest and last == answer:
                log.warning(
                    "ablation %s answers the canary exactly as %s did: none of the components "
                    "between them matters for it, or the switch had no effect",
                    intervention.digest,
                    digest,
                )
        self._last = (intervention.digest, answer)
