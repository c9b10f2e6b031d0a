"""The rankings that a recipe asks for."""

from __future__ import annotations

from dataclasses import dataclass

from prunelib.recipe.attribution import AttributionSpec


@dataclass(frozen=True)
class RankingRequest:
    """A ranking that a recipe asks for: an attribution on one task's prompts with one seed.

    Attributes:
        task: whose prompts are attributed.
        only: the task that its ablation is reported on, or ``None`` for all.
        main: whether it is part of the main comparison: random rankings go through its search.
    """

    spec: AttributionSpec
    task: str
    seed: int
    only: str | None
    main: bool
