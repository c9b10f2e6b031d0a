"""The kinds of intervention, one line each."""

from __future__ import annotations

from typing import Any

from prunelib.errors import UserError
from prunelib.interventions.ablation import Ablation
from prunelib.interventions.base import Intervention
from prunelib.interventions.fine_tuning import FineTuning

#: Kind → class.
KINDS: dict[str, type[Intervention]] = {kind.kind: kind for kind in (
    Ablation,
    FineTuning,
)}


def intervention_of(kind: str, content: dict[str, Any]) -> Intervention:
    """The intervention of a kind with this content, as a row of ``interventions`` holds both.

    Raises :class:`UserError` if this version knows no such kind.
    """
    if kind not in KINDS:
        raise UserError(f"interventions of kind '{kind}' are of another version of prunelib")
    return KINDS[kind].from_content(content)
