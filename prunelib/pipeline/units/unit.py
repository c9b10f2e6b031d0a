"""Units of work: what is done, named by everything that determines its output.

A unit's id digests the model's weights and tokenizer, the task's content, the intervention and
every parameter of the method, and nothing else: not the recipe, not the worker, not the path.
Equal work therefore has one file, whichever run asks for it.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar, Literal, Protocol

from pydantic import BaseModel

from prunelib.engines.base import Canary, Engine
from prunelib.engines.registry import EngineName
from prunelib.identity import digest
from prunelib.interventions.base import Intervention
from prunelib.models import Loaded, ModelInfo
from prunelib.vocabulary import Stage

#: Goes up whenever the same unit would write other rows than before.
UNIT_VERSION = 5

#: What a worker process is for: a model in torch, or an engine that holds one.
WorkerRole = Literal["torch", "vllm"]
#: A row of a result table.
Row = dict[str, Any]


class Workplace(Protocol):
    """What a job finds in the process that runs it."""

    #: How often its batches are to be halved, since memory ran out.
    batch_halvings: int

    def loaded(self, info: ModelInfo, dtype: str) -> Loaded:
        """The model in transformers."""
        ...

    def engine(self, unit: Unit, kind: EngineName, dtype: str, intervention: Intervention,
               canary: Canary | None) -> Engine:
        """The engine of a unit's model, switched to an intervention."""
        ...


@dataclass(frozen=True)
class Job(ABC):
    """What a unit does. A kind of job is one subclass, in the file of its study or stage.

    Fields that are compared identify the job; ``field(compare=False)`` is for what only says how
    it is done or checked.
    """

    #: Enters the unit's id, so it never changes, whatever the class is called.
    kind: ClassVar[str]
    stage: ClassVar[Stage]
    #: Table that its rows go to.
    table: ClassVar[str]

    dtype: str

    @property
    def role(self) -> WorkerRole:
        """What kind of process runs it."""
        return "torch"

    @abstractmethod
    def describe(self) -> str:
        """What it does, on one short line for people."""

    @abstractmethod
    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        """The rows that the unit's one file consists of."""


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
        content = [UNIT_VERSION, self.job.kind, self.model.key, identity(self.job)]
        return f"{self.stage}-{digest('unit', content)}"

    @property
    def stage(self) -> Stage:
        """Which stage of the pipeline it belongs to."""
        return self.job.stage

    @property
    def table(self) -> str:
        """The table that its file is part of."""
        return self.job.table


def identity(value: Any) -> Any:
    """What identifies a job, or a part of one, as JSON-like values.

    Interventions stand for themselves by their digest, dataclasses by the fields that are compared.
    """
    if isinstance(value, Intervention):
        return value.digest
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, tuple):
        return [identity(item) for item in value]
    if is_dataclass(value):
        return {f.name: identity(getattr(value, f.name)) for f in fields(value) if f.compare}
    return value
