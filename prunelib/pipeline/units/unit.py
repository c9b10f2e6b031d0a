"""Units of work: what is done, named by everything that determines its output.

A unit's id digests the model's weights and tokenizer, the task's content, the ablation and every
parameter of the method, and nothing else: not the recipe, not the worker, not the path. Equal
work therefore has one file, whichever run asks for it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from pydantic import BaseModel

from prunelib.engines.base import Canary
from prunelib.errors import UnitError
from prunelib.identity import digest
from prunelib.interventions.ablation import Ablation
from prunelib.models.info import ModelInfo
from prunelib.recipe.base import FineTuningSpec, ObjectiveSpec, TaskVectorsSpec
from prunelib.tasks import (
    DatasetSpec,
    Example,
    Split,
    Task,
    build_task,
    draw_labelled,
    get_task,
    relabelled,
)

#: Goes up whenever the same unit would write other rows than before.
UNIT_VERSION = 2

Stage = Literal["attribute", "search", "canary", "evaluate"]
Projection = Literal["gate", "up", "down"]


@dataclass(frozen=True)
class TaskRef:
    """A task by name and content, as it travels to workers."""

    name: str
    digest: str
    #: The data set that it is (JSON), or nothing for a bundled task; its content is in the digest.
    dataset: str = field(default="", compare=False, repr=False)

    def load(self) -> Task:
        """The task itself. Raises :class:`UnitError` if its content is another one here."""
        task = (build_task(DatasetSpec.model_validate_json(self.dataset)) if self.dataset
                else get_task(self.name))
        if task.digest != self.digest:
            raise UnitError(f"task '{self.name}' has other content on this node")
        return task


@dataclass(frozen=True)
class Prompts:
    """Which examples of a task: draws ``indices`` of the seeded sequence of a split."""

    task: TaskRef
    split: Split
    shots: int
    seed: int
    indices: tuple[int, ...]
    #: As the recipe names it, or ``own`` for that of the task.
    format: str


@dataclass(frozen=True)
class AttributeJob:
    """∂F/∂s at the nodes that one quadrature level adds, for one block of prompts."""

    objective: ObjectiveSpec
    objective_digest: str
    path: Literal["layer", "joint", "last_position"]
    released: bool
    projection: Projection | None
    prompts: Prompts
    #: One layer, or all of them for the joint path.
    layers: tuple[int, ...]
    level: int
    dtype: str


@dataclass(frozen=True)
class ScoreJob:
    """Scores of every unit of some layers by another method than integrated gradients."""

    method: str
    objective: ObjectiveSpec
    objective_digest: str
    projection: Projection | None
    prompts: Prompts
    layers: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class GridJob:
    """Several ablations of one layer on the same examples, in one batch."""

    prompts: Prompts
    #: ``options``: the answer is one of the task's options.
    scoring: Literal["greedy", "options"]
    layer: int
    ablations: tuple[Ablation, ...]
    dtype: str


@dataclass(frozen=True)
class PoolJob(GridJob):
    """What the untouched model answers to prompts, so that attribution can choose among them."""


@dataclass(frozen=True)
class CanaryJob:
    """What a model under an ablation must answer to one prompt, according to transformers."""

    prompts: Prompts
    ablation: Ablation
    dtype: str


@dataclass(frozen=True)
class EvaluateJob:
    """One task at one number of shots and one seed, under one ablation, on an engine."""

    task: TaskRef
    shots: int
    seed: int
    examples: int
    repeat: int
    #: As the recipe names it, or ``own`` for that of the task.
    format: str
    scoring: Literal["greedy", "options"]
    ablation: Ablation
    engine: Literal["transformers", "vllm"]
    dtype: str
    #: What the answers are for; for ``capability`` too the examples are of the report split.
    split: Literal["search", "report", "capability"] = "report"
    #: How the engine is checked; not part of the id.
    canary: Canary | None = None


@dataclass(frozen=True)
class ImportanceJob:
    """Gradient importance of every head and FFN, all variants, on some prompts."""

    prompts: Prompts
    dtype: str


@dataclass(frozen=True)
class InductionJob:
    """Prefix-matching and copying scores of every head, on random sequences."""

    sequences: int
    seed: int
    dtype: str


@dataclass(frozen=True)
class LabelledPrompts:
    """Prompts of a task whose two classes have other names, as many of every seed."""

    task: TaskRef
    labels: tuple[str, str]
    split: Split
    #: Demonstrations of each label.
    each: int
    seeds: tuple[int, ...]
    count: int
    format: str

    @functools.cached_property
    def relabelled(self) -> Task:
        """The task with its new labels."""
        return relabelled(self.task.load(), self.labels)

    def draw(self, reverse: bool = False) -> list[Example]:
        """The prompts, seed after seed; ``reverse``: the two labels change places."""
        return [example for seed in self.seeds for example in draw_labelled(
            self.relabelled, split=self.split, counts=(self.each, self.each), seed=seed,
            count=self.count, reverse=reverse, prompt_format=self.format)]


@dataclass(frozen=True)
class HeadScoresJob:
    """How much heads do for either label: of all heads, or in one layer what each is worth."""

    prompts: LabelledPrompts
    #: In which heads are removed one at a time; ``None``: what the outputs of all heads say.
    layer: int | None
    dtype: str


@dataclass(frozen=True)
class HeadReadingsJob:
    """What heads read at the labels, which then change places."""

    prompts: LabelledPrompts
    heads: Ablation
    dtype: str


@dataclass(frozen=True)
class LabelledJob:
    """Which of two labels a model under an ablation says, on an engine."""

    prompts: LabelledPrompts
    ablation: Ablation
    engine: Literal["transformers", "vllm"]
    dtype: str
    #: How the engine is checked; not part of the id.
    canary: Canary | None = None


@dataclass(frozen=True)
class LabelBiasJob:
    """Majority-label and recency bias, with or without a mitigation in some heads."""

    prompts: LabelledPrompts
    #: ``none``, or what is done in which heads.
    mitigation: Literal["none", "minority_boost", "without_positions"]
    heads: Ablation
    strength: float | None
    mode: Literal["replace", "add"] | None
    orders: int
    dtype: str


@dataclass(frozen=True)
class FineTuneJob:
    """A model fine-tuned on some prompts, on one task at one number of shots and one seed."""

    samples: Prompts
    settings: FineTuningSpec
    task: TaskRef
    shots: int
    seed: int
    examples: int
    format: str
    scoring: Literal["greedy", "options"]
    dtype: str

    @property
    def intervention(self) -> str:
        """Digest of the samples and settings, which stands where an ablation's would."""
        return digest("fine-tuning", [_plain(self.samples), _plain(self.settings)])


@dataclass(frozen=True)
class TaskVectorJob:
    """One task under an ablation: zero-shot, with demonstrations, with task vectors."""

    task: TaskRef
    settings: TaskVectorsSpec
    format: str
    ablation: Ablation
    dtype: str


@dataclass(frozen=True)
class Texts:
    """Texts whose probability is measured, by name and content."""

    name: str
    #: (context, text): how probable is the text after its context, which may be empty.
    content: tuple[tuple[str, str], ...] = field(repr=False)

    @functools.cached_property
    def digest(self) -> str:
        """Content digest."""
        return digest("texts", [list(pair) for pair in self.content])


@dataclass(frozen=True)
class LikelihoodJob:
    """How probable some texts are to a model under an ablation, in transformers."""

    texts: Texts
    ablation: Ablation
    dtype: str


Job = (AttributeJob | ScoreJob | PoolJob | GridJob | CanaryJob | EvaluateJob | FineTuneJob
       | TaskVectorJob | LikelihoodJob | ImportanceJob | InductionJob | HeadScoresJob
       | HeadReadingsJob | LabelledJob | LabelBiasJob)

_STAGES: dict[type, tuple[Stage, str]] = {
    AttributeJob: ("attribute", "attribution_parts"),
    ScoreJob: ("attribute", "attribution_parts"),
    PoolJob: ("attribute", "predictions"),
    GridJob: ("search", "predictions"),
    CanaryJob: ("canary", "canaries"),
    EvaluateJob: ("evaluate", "predictions"),
    FineTuneJob: ("evaluate", "predictions"),
    TaskVectorJob: ("evaluate", "task_vectors"),
    LikelihoodJob: ("evaluate", "likelihoods"),
    ImportanceJob: ("attribute", "component_scores"),
    InductionJob: ("attribute", "component_scores"),
    HeadScoresJob: ("attribute", "component_scores"),
    HeadReadingsJob: ("evaluate", "component_scores"),
    LabelledJob: ("evaluate", "predictions"),
    LabelBiasJob: ("evaluate", "label_biases"),
}
_NOT_IN_ID = ("canary", "objective")


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
        content = [UNIT_VERSION, type(self.job).__name__, self.model.key, _plain(self.job)]
        return f"{self.stage}-{digest('unit', content)}"

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
            return (f"{_layers(job.layers)}, {len(job.prompts.indices)} prompts from "
                    f"{job.prompts.indices[0]}, level {job.level}")
        if isinstance(job, ScoreJob):
            return f"{job.method}, {_layers(job.layers)}"
        if isinstance(job, GridJob):
            return f"layer {job.layer}, {len(job.ablations)} ablations"
        if isinstance(job, CanaryJob):
            return f"ablation {job.ablation.digest[:8]}"
        if isinstance(job, LikelihoodJob):
            return f"{len(job.texts.content)} texts, {job.ablation.digest[:8]}"
        if isinstance(job, ImportanceJob):
            return f"importance, {job.prompts.task.name}, {job.prompts.shots} shots"
        if isinstance(job, InductionJob):
            return f"induction scores, {job.sequences} sequences"
        if isinstance(job, HeadScoresJob):
            return "labels said by heads" if job.layer is None else f"heads of layer {job.layer}"
        if isinstance(job, HeadReadingsJob):
            return f"labels read by {len(job.heads)} heads"
        if isinstance(job, LabelBiasJob):
            return f"label biases, {job.prompts.task.name}, mitigation {job.mitigation}"
        if isinstance(job, LabelledJob):
            return f"labels of {job.prompts.task.name}, {job.ablation.digest[:8]}"
        if isinstance(job, TaskVectorJob):
            return f"task vectors of {job.task.name}, {job.ablation.digest[:8]}"
        what = (f"fine-tuned {job.intervention[:8]}" if isinstance(job, FineTuneJob)
                else job.ablation.digest[:8])
        return f"{job.task.name}, {job.shots} shots, seed {job.seed}, {what}"


def _layers(layers: tuple[int, ...]) -> str:
    return f"layer {layers[0]}" if len(layers) == 1 else f"{len(layers)} layers"


def _plain(value: Any) -> Any:
    """What identifies a job, as JSON: dataclasses by field, ablations by digest."""
    if isinstance(value, Ablation):
        return value.digest
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, TaskRef | Texts):
        return [value.name, value.digest]
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)
                if f.name not in _NOT_IN_ID}
    return value
