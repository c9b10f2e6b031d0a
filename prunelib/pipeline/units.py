"""Units of work: what is done, named by everything that determines its output.

A unit's id digests the model's weights and tokenizer, the task's content, the ablation and every
parameter of the method, and nothing else: not the recipe, not the worker, not the path. Equal
work therefore has one file, whichever run asks for it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields
from typing import Any, Literal

from prunelib.components import Ablation
from prunelib.engines.base import Canary
from prunelib.identity import digest
from prunelib.models.identity import ModelInfo

#: Goes up whenever the same unit would write other rows than before.
UNIT_VERSION = 1

Stage = Literal["attribute", "search", "canary", "evaluate"]


@dataclass(frozen=True)
class AttributeJob:
    """∂F/∂s at the nodes that one quadrature level adds, for one layer and block of prompts."""

    objective: str
    task: str
    task_digest: str
    shots: int
    seed: int
    start: int
    stop: int
    layer: int
    level: int
    dtype: str


@dataclass(frozen=True)
class GridJob:
    """Several ablations of one layer on the same search examples, in one batch."""

    task: str
    task_digest: str
    shots: int
    seed: int
    examples: int
    layer: int
    ablations: tuple[Ablation, ...]
    dtype: str


@dataclass(frozen=True)
class CanaryJob:
    """What a model under an ablation must answer to one prompt, according to transformers."""

    task: str
    task_digest: str
    ablation: Ablation
    dtype: str


@dataclass(frozen=True)
class EvaluateJob:
    """One task at one number of shots and one seed, under one ablation, on an engine."""

    task: str
    task_digest: str
    shots: int
    seed: int
    examples: int
    repeat: int
    format: str
    ablation: Ablation
    engine: Literal["transformers", "vllm"]
    dtype: str
    #: How the engine is checked; not part of the id.
    canary: Canary | None = None


Job = AttributeJob | GridJob | CanaryJob | EvaluateJob

_STAGES: dict[type, tuple[Stage, str]] = {
    AttributeJob: ("attribute", "attribution_parts"),
    GridJob: ("search", "predictions"),
    CanaryJob: ("canary", "canaries"),
    EvaluateJob: ("evaluate", "predictions"),
}
_NOT_IN_ID = ("canary",)


@dataclass(frozen=True)
class Unit:
    """One piece of work with a deterministic id and exactly one output file.

    What follows the job says how the work is done, not what it is: it does not enter the id.
    """

    model: ModelInfo
    job: Job
    #: Relative cost within a stage: longer units are handed out first.
    cost: float = 1.0
    #: 0 for what every model needs first, 1 for extras: handed out in this order.
    priority: int = 0
    #: GPUs over which an engine splits the model; ``None`` leaves it to the executor.
    tensor_parallel: int | None = None

    @functools.cached_property
    def id(self) -> str:
        """Deterministic id, also the name of the output file."""
        content = {f.name: _plain(getattr(self.job, f.name)) for f in fields(self.job)
                   if f.name not in _NOT_IN_ID}
        return f"{self.stage}-{digest('unit', [UNIT_VERSION, self.stage, self.model.key, content])}"

    @property
    def stage(self) -> Stage:
        """Which stage of the pipeline it belongs to."""
        return _STAGES[type(self.job)][0]

    @property
    def table(self) -> str:
        """The table that its file is part of."""
        return _STAGES[type(self.job)][1]

    @property
    def detail(self) -> str:
        """What it does, for people."""
        job = self.job
        if isinstance(job, AttributeJob):
            return f"layer {job.layer}, prompts {job.start}-{job.stop - 1}, level {job.level}"
        if isinstance(job, GridJob):
            return f"layer {job.layer}, {len(job.ablations)} ablations"
        if isinstance(job, CanaryJob):
            return f"ablation {job.ablation.digest[:8]}"
        return f"{job.task}, {job.shots} shots, seed {job.seed}, {job.ablation.digest[:8]}"


def _plain(value: Any) -> Any:
    if isinstance(value, Ablation):
        return value.digest
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
