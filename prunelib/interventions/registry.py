"""The kinds of intervention, one line each."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

from prunelib.errors import UserError
from prunelib.interventions.base import Intervention

#: Kind → ``module:class``, a module of this package.
KINDS = {
    "ablation": "ablation:Ablation",
    "fine_tuning": "fine_tuning:FineTuning",
    "steering": "steering:Steering",
}


def intervention_of(kind: str, content: dict[str, Any]) -> Intervention:
    """The intervention of a kind with this content, as a row of ``interventions`` holds both.

    Raises :class:`UserError` if this version knows no such kind.
    """
    if kind not in KINDS:
        raise UserError(f"interventions of kind '{kind}' are of another version of prunelib")
    module, _, name = KINDS[kind].partition(":")
    made = getattr(import_module(f"prunelib.interventions.{module}"), name)
    return cast("Intervention", made.from_content(content))
