"""Interventions with where they came from: rows of the table ``interventions``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from prunelib.components import Site
from prunelib.interventions.ablation import Ablation
from prunelib.interventions.base import Intervention
from prunelib.interventions.steering import Steering
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.vocabulary import Role

Done = TypeVar("Done", bound=Intervention)


@dataclass(frozen=True)
class InterventionRecord:
    """An intervention with where it came from: a row of the table ``interventions``.

    Attributes:
        proxy: task on whose examples the search decided.
        only: the one task whose answers it is reported on, or ``None`` for all.
        strength: of a steering.
        samples: prompts that it was found on, without those of the search.
        main: whether it is part of the main comparison, which a deadline puts first.
    """

    intervention: Intervention
    method: str
    role: Role
    site: Site | None = None
    layer: int | None = None
    rate: float | None = None
    seed: int | None = None
    proxy: str | None = None
    only: str | None = None
    strength: float | None = None
    samples: int | None = None
    main: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class AblationRecord(InterventionRecord):
    """The record of an ablation."""

    intervention: Ablation


def distinct(records: Iterable[AblationRecord]) -> list[Ablation]:
    """The ablations, each once."""
    return list({r.intervention.digest: r.intervention for r in records}.values())


def record_interventions(run: ModelRun, records: Sequence[InterventionRecord], stage: str) -> None:
    """Write where interventions come from into the table ``interventions``."""
    run.record("interventions", [
        {
            "model": run.info.id,
            "intervention": r.intervention.digest,
            "kind": r.intervention.kind,
            "content": json.dumps(r.intervention.content(), separators=(",", ":")),
            "method": r.method,
            "role": r.role,
            "site": r.site,
            "layer": r.layer,
            "rate": r.rate,
            "count": len(r.intervention) if isinstance(r.intervention, Ablation | Steering) else 0,
            "seed": r.seed,
            "proxy": r.proxy,
            "only_task": r.only,
            "strength": r.strength,
            "samples": r.samples,
        }
        for r in records
    ], stage)  # fmt: skip
