"""The sections of a recipe: frozen pydantic models that know no other section."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from prunelib.errors import UserError, unknown_name
from prunelib.tasks import FORMATS, MAX_SHOTS, SUITES, task_names

Rate = Annotated[float, Field(gt=0, lt=1)]
Shots = Annotated[int, Field(ge=0, le=MAX_SHOTS)]
Count = Annotated[int, Field(ge=1)]
Dtype = Literal["float32", "bfloat16", "float16"]

#: Attribution methods by name; each is one line here and one in ``prunelib.attribution.scorers``,
#: but for ``random``, for which nothing is run.
METHODS = ("integrated_gradients", "iterated_path", "gradient_activation", "activation", "weight",
           "wanda", "random")
#: Methods that differentiate an objective, so that one has to be chosen.
GRADIENT_METHODS = ("integrated_gradients", "iterated_path", "gradient_activation")
#: Objectives by name; a user's own is named ``package.module:function``.
OBJECTIVES = ("copy_shift", "max_logit")
#: What the tables call the untouched model and the controls.
_TAKEN = ("none", "random", "random_search", "fine_tuning")
#: Search strategies by name; each is one line here and one in ``prunelib.search.strategies``.
STRATEGIES = ("exhaustive", "coarse_to_fine", "attribution_mass", "successive_halving")
#: Stands for every evaluated task in turn: each gets an ablation of its own.
EACH_TASK = "each_task"


class Spec(BaseModel):
    """Base of every section: frozen, and a key that nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def one_of(kind: str, names: Iterable[str]) -> AfterValidator:
    """A check that a name is one of ``names``; the error has near matches."""

    def check(name: str) -> str:
        if name not in names:
            raise unknown_name(kind, name, names)
        return name

    return AfterValidator(check)


def one_or_more(value: Any) -> Any:
    """A list of one where a recipe gives a single value."""
    return value if isinstance(value, list | tuple) else (value,)


def _once(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


#: What may be a single value; an empty list is a mistake, and a repeated value is taken once.
ONE_OR_MORE = (BeforeValidator(one_or_more), Field(min_length=1), AfterValidator(_once))
#: ``(0,)`` and the like: what draws differ by.
Seeds = Annotated[tuple[int, ...], *ONE_OR_MORE]


def section(value: Any) -> Any:
    """A section that is asked for by ``true``, with its defaults, or left out by ``false``."""
    return {} if value is True else None if value is False else value


PromptFormatName = Annotated[str, one_of("prompt format", FORMATS)]


class ModelSpec(Spec):
    """A model: ``reference/NAME``, a local folder, or a hub name with an optional revision."""

    id: str
    revision: str | None = None
    dtype: Dtype = "float32"
    #: GPUs over which vLLM splits the model; ``auto`` is as few as hold it.
    tensor_parallel: Count | Literal["auto"] = "auto"
    #: Whether Python code that lies beside the weights may run. It may do anything this user may.
    trust_remote_code: bool = False


class ObjectiveSpec(Spec):
    """The scalar of the logits that attribution differentiates (papers.md §6, row 1).

    ``copy_shift`` has four switches: how the demonstrations' answers are joined, in which space
    tokens are scored, whether only the gold answer counts, and whether only the first token of
    an answer counts or all of them, teacher-forced. ``max_logit`` needs no labels.
    """

    name: str = "copy_shift"
    aggregate: Literal["mean", "sum", "max"] = "mean"
    space: Literal["probability", "log_probability", "logit"] = "probability"
    gold_only: bool = False
    tokens: Literal["first", "all"] = "first"

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        module, colon, function = name.partition(":")
        if not colon and name not in OBJECTIVES:
            raise unknown_name("objective", name, [*OBJECTIVES, "package.module:function"])
        if colon and not all(part.isidentifier() for part in (*module.split("."), function)):
            raise UserError(f"objective '{name}' is not of the form package.module:function")
        return name

    @model_validator(mode="after")
    def _switches(self) -> ObjectiveSpec:
        moved = self.model_dump(exclude={"name"}, exclude_defaults=True)
        if self.name != "copy_shift" and moved:
            raise UserError(f"objective '{self.name}' has no switches; copy_shift has "
                            "aggregate, space, gold_only and tokens")
        if self.tokens == "all" and self.aggregate == "max":
            raise UserError("objective: aggregate max scores first tokens: use tokens: first")
        return self

    @property
    def own(self) -> bool:
        """Whether it is a function of the user's."""
        return ":" in self.name

    @property
    def needs_labels(self) -> bool | None:
        """Whether it reads gold answers; None if a user's own function has to be asked."""
        return None if self.own else self.name != "max_logit"

    @property
    def label(self) -> str:
        """The objective on one line, with the switches that were moved."""
        moved = self.model_dump(exclude_defaults=True, exclude={"name"})
        switches = ", ".join(key if value is True else str(value) for key, value in moved.items())
        return f"{self.name} ({switches})" if switches else self.name


def _objective(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class AttributionSpec(Spec):
    """How components are scored. A recipe may have several: each makes an ablation of its own."""

    #: What it is called in the tables; the method's name unless several use that.
    name: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = None
    method: Annotated[str, one_of("method", METHODS)] = "integrated_gradients"
    objective: Annotated[ObjectiveSpec, BeforeValidator(_objective)] = ObjectiveSpec()
    #: ``layer``: all neurons of one layer together; ``joint``: of all layers; ``last_position``:
    #: of one layer, where the answer begins; ``single``: each neuron alone (papers.md §1.3).
    path: Literal["layer", "joint", "last_position", "single"] = "layer"
    #: ``released``: gradients clamped at zero, no weight factor, layers divided by their maximum,
    #: as the DSM paper's code is reported to do (papers.md §2.1).
    variant: Literal["equation", "released"] = "equation"
    #: Projection whose output neurons are the neurons; by default that of the papers.
    projection: Literal["gate", "up", "down"] | None = None
    #: What is switched off first: the highest scores, the lowest, or the largest.
    rank: Literal["top", "bottom", "absolute"] = "top"
    #: Task whose prompts are attributed, or ``each_task``.
    proxy: str = "vowel_counting"
    prompts: Count = 100
    #: Which prompts of the task: drawn at random, or among those that the untouched model
    #: answers correctly or wrongly.
    choose: Literal["random", "correct", "wrong"] = "random"
    shots: Shots = 3
    seeds: Seeds = (0,)
    #: Quadrature nodes of a layer are raised until the estimated relative error of its mean
    #: scores is below this, or ``max_nodes`` is reached.
    tolerance: Annotated[float, Field(gt=0)] = 0.02
    max_nodes: Literal[9, 17, 33, 65, 129, 257] = 129
    #: Prompts of one unit of work.
    block: Count = 25

    @field_validator("name")
    @classmethod
    def _free(cls, name: str | None) -> str | None:
        if name in _TAKEN:
            raise UserError(f"attribution: '{name}' is what the tables call a reference: give it "
                            "another name")
        return name

    @model_validator(mode="after")
    def _fits_method(self) -> AttributionSpec:
        plain = AttributionSpec.model_fields
        for field in ("path", "variant"):
            if self.method != "integrated_gradients" and getattr(self, field) != plain[
                    field].default:
                raise UserError(f"attribution: {field} is for method integrated_gradients, "
                                f"not for {self.method}")
        if self.method == "iterated_path" and (
                self.projection is not None or self.objective.tokens == "all"):
            raise UserError("attribution: iterated_path switches neurons off where they are "
                            "switched off, for the first token of an answer: no projection, "
                            "tokens: first")
        if self.method == "random" and self.name is None:
            raise UserError("attribution: 'random' is what the tables call a control: give method "
                            "random a name")
        if self.variant == "released" and self.path == "single":
            raise UserError("attribution: path single has no gradients, so no variant released")
        return self

    @property
    def label(self) -> str:
        """What it is called in the tables."""
        return self.name or self.method


def _layers(value: Any) -> Any:
    """``all``, or layers by number, each once."""
    if value == "all":
        return value
    layers = one_or_more(value)
    if not layers or any(type(layer) is not int for layer in layers):
        raise UserError("search.layers: give at least one layer by its number, or all "
                        f"(got {value!r})")
    if min(layers) < 0:
        raise UserError("search.layers: layers are counted from 0, so there is no layer "
                        f"{min(layers)}")
    return _once(layers)


class SearchSpec(Spec):
    """The grid over layers and rates, on held-out examples of a proxy."""

    layers: Annotated[Literal["all"] | tuple[int, ...], BeforeValidator(_layers)] = "all"
    rates: Annotated[tuple[Rate, ...], BeforeValidator(one_or_more)] = (
        0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4)
    #: Task whose examples decide; by default the one that was attributed.
    proxy: str | None = None
    #: ``attribute``: the very prompts that were attributed; else examples kept for the search.
    split: Literal["search", "attribute"] = "search"
    examples: Count = 200
    shots: Shots = 3
    seed: int = 0
    #: Which cells are tried, and on how many examples.
    strategy: Annotated[str, one_of("search strategy", STRATEGIES)] = "exhaustive"
    #: What the choice goes by: ``margin`` also sees how sure right answers are.
    statistic: Literal["accuracy", "margin"] = "accuracy"
    #: What switching a neuron off means where it has a bias: nothing is left of the ``neuron``, or
    #: its ``weight_row`` is zero and its bias stays (papers.md §6, row 5).
    prune: Literal["neuron", "weight_row"] = "neuron"

    @field_validator("rates")
    @classmethod
    def _ascending(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if not rates:
            raise UserError("search.rates is empty: give at least one rate")
        return tuple(sorted(set(rates)))


class FineTuningSpec(Spec):
    """Settings of full fine-tuning with AdamW: no weight decay, no schedule, no dropout.

    The defaults are this project's, as the DSM paper's are not known (papers.md §2.3): a learning
    rate that is usual for all parameters of a model of billions, and so many small batches that
    the loss on ten samples falls (25 steps). The reference models are small and take ten times
    that rate.
    """

    epochs: Annotated[int, Field(ge=0)] = 5
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    batch_size: Count = 2
    seed: int = 0


class ControlsSpec(Spec):
    """What an ablation is compared with, besides the untouched model."""

    #: How many random rankings go through the search of the first attribution; as many sets of
    #: random neurons are drawn at the layer and size of every attribution's choice.
    random: Annotated[int, Field(ge=0)] = 1
    #: Full fine-tuning on the very prompts that the first attribution saw, with their labels.
    #: ``true``, or a section.
    fine_tuning: Annotated[FineTuningSpec | None, BeforeValidator(section)] = None


class TaskVectorsSpec(Spec):
    """Task vectors (papers.md §5.1) in the untouched model and in every chosen ablation."""

    #: Demonstrations behind a vector; also those of the in-context learning beside it.
    shots: Annotated[int, Field(ge=1, le=MAX_SHOTS)] = 4
    seed: int = 0
    #: Prompts, as many on the search split (where the layer is chosen) as on the report split.
    examples: Count = 50
    #: ``other``: the mean over the vectors of other prompts in which the query does not occur.
    context: Literal["own", "other"] = "own"


def _expanded(value: Any) -> tuple[str, ...]:
    """Task names with the suites expanded; names that a recipe defines stay what they are."""
    names: dict[str, None] = {}
    for name in [value] if isinstance(value, str) else value:
        names.update(dict.fromkeys(SUITES.get(name, (name,))))
    return tuple(names)


class CapabilitySpec(Spec):
    """What else a model can do before and after, so that a repair is not a broken model.

    None of it is reported with the tasks: it has the view ``capability``.
    """

    #: Whose perplexity is measured: ``prose``, the paragraphs that come with prunelib, is the
    #: default because any language model can read it. A path names a text file, parted into
    #: paragraphs by blank lines. ``prompts`` are the right answers to the reported tasks, each
    #: after its prompt: for models that never read prose, as the reference models.
    text: str = "prose"
    #: Multiple choice: the most probable of a question's options is the answer. A model that is
    #: at chance before, as the small reference models are, cannot be seen to lose anything.
    tasks: Annotated[tuple[str, ...], BeforeValidator(_expanded), Field(min_length=1)] = tuple(
        task_names("capability"))
    #: None by default, so that there is nothing to copy.
    shots: Shots = 0
    #: Questions of each task; with ``text: prompts`` also prompts of each reported task.
    examples: Count = 100


class EvaluateSpec(Spec):
    """What is reported, on the report split."""

    tasks: Annotated[tuple[str, ...], BeforeValidator(_expanded), Field(min_length=1)] = tuple(
        task_names("icl18"))
    shots: Annotated[tuple[Shots, ...], *ONE_OR_MORE] = (1, 2, 3, 4)
    seeds: Seeds = (0,)
    examples: Count = 100
    #: By default that of the recipe; another one shows whether an ablation survives it.
    format: PromptFormatName | None = None
    #: ``options``: where a task's answers are few and known, the most probable of them is the
    #: prediction; else, and everywhere else, what the model writes is.
    scoring: Literal["greedy", "options"] = "greedy"
    #: With ``proxy: each_task``: every task's ablation on every task, not only on its own.
    transfer: bool = False
    #: ``true``, or a section.
    task_vectors: Annotated[TaskVectorsSpec | None, BeforeValidator(section)] = None
    #: Perplexity and multiple choice before and after: ``true``, or a section.
    capability: Annotated[CapabilitySpec | None, BeforeValidator(section)] = None
