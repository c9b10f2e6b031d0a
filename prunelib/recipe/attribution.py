"""The section ``attribution``: which components are scored, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from prunelib.errors import UserError, unknown_name
from prunelib.recipe.base import Count, Seeds, Shots, Spec, one_of
from prunelib.recipe.methods import METHODS, OBJECTIVES, PATHS, Method
from prunelib.vocabulary import REFERENCE_METHODS

#: Stands for every evaluated task in turn: each gets an ablation of its own.
EACH_TASK = "each_task"


class ObjectiveSpec(Spec):
    """The scalar of the logits that attribution differentiates (formulas.md §6, row 1).

    ``copy_shift`` has four switches: how the demonstrations' answers are joined, in which space
    tokens are scored, whether only the gold answer counts, and whether only the first token of
    an answer counts or all of them, teacher-forced. ``max_logit`` needs no labels.
    """

    #: ``copy_shift``, ``max_logit``, or a function of the user's: ``package.module:function``.
    name: str = "copy_shift"
    #: How the demonstrations' answers are joined.
    aggregate: Literal["mean", "sum", "max"] = "mean"
    #: In which space tokens are scored.
    space: Literal["probability", "log_probability", "logit"] = "probability"
    #: Whether only the gold answer counts.
    gold_only: bool = False
    #: Whether the first token of an answer counts, or all of them.
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
        if moved and (self.own or not OBJECTIVES[self.name].switches):
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
        return None if self.own else OBJECTIVES[self.name].needs_labels

    @property
    def compares_answers(self) -> bool:
        """Whether it compares answers of demonstrations, so that there have to be some."""
        return (not self.own and OBJECTIVES[self.name].compares_answers
                and not self.gold_only)

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
    #: How components are scored; ``random`` draws their order.
    method: Annotated[str, one_of("method", METHODS)] = "integrated_gradients"
    objective: Annotated[ObjectiveSpec, BeforeValidator(_objective)] = ObjectiveSpec()
    #: ``layer``: all neurons of one layer together; ``joint``: of all layers; ``last_position``:
    #: of one layer, where the answer begins; ``single``: each neuron alone (formulas.md §1.3).
    path: Literal["layer", "joint", "last_position", "single"] = "layer"
    #: ``released``: gradients clamped at zero, no weight factor, layers divided by their maximum,
    #: as the DSM paper's code is reported to do (formulas.md §2.1).
    variant: Literal["equation", "released"] = "equation"
    #: Projection whose outputs are the neurons; by default that of the papers.
    projection: Literal["gate", "up", "down"] | None = None
    #: What is switched off first: the highest scores, the lowest, or the largest.
    rank: Literal["top", "bottom", "absolute"] = "top"
    #: Task whose prompts are attributed, or ``each_task``.
    proxy: str = "vowel_counting"
    #: How many prompts are attributed.
    prompts: Count = 100
    #: Which prompts of the task: drawn at random, or among those that the untouched model
    #: answers correctly or wrongly.
    choose: Literal["random", "correct", "wrong"] = "random"
    #: Demonstrations in each prompt.
    shots: Shots = 3
    #: Split that demonstrations come from, as in ``evaluate``; none that is reported.
    demonstrations: str | None = None
    #: Of the prompts; each seed makes an ablation of its own.
    seeds: Seeds = (0,)
    #: Quadrature nodes of a layer are raised until the estimated relative error of its mean
    #: scores is below this, or ``max_nodes`` is reached.
    tolerance: Annotated[float, Field(gt=0)] = 0.02
    #: The most quadrature nodes of a layer.
    max_nodes: Literal[9, 17, 33, 65, 129, 257] = 129
    #: Prompts of one unit of work.
    block: Count = 25

    @field_validator("name")
    @classmethod
    def _free(cls, name: str | None) -> str | None:
        if name in REFERENCE_METHODS:
            raise UserError(f"attribution: '{name}' is what the tables call a reference: give it "
                            "another name")
        return name

    @model_validator(mode="after")
    def _fits_method(self) -> AttributionSpec:
        moved = self.model_dump(exclude_defaults=True, include={"path", "variant", "projection"})
        if self.objective.tokens == "all":
            moved["objective.tokens"] = "all"
        for key in (key for key in moved if key not in METHODS[self.method].takes):
            takers = [name for name, method in METHODS.items() if key in method.takes]
            raise UserError(f"attribution: {key} is for method {' or '.join(takers)}, "
                            f"not for {self.method}")
        if self.variant == "released" and "variant" not in self.computation.takes:
            raise UserError(f"attribution: path {self.path} has no gradients, so no variant "
                            "released")
        if self.label in REFERENCE_METHODS:
            raise UserError(f"attribution: '{self.label}' is what the tables call a control: give "
                            f"method {self.method} a name")
        return self

    @property
    def computation(self) -> Method:
        """What is computed: a path may be another computation than its method."""
        return PATHS.get(self.path, METHODS[self.method])

    @property
    def label(self) -> str:
        """What it is called in the tables."""
        return self.name or self.method


def named_method(value: Any) -> Any:
    """An attribution that is given by its method alone."""
    return {"method": value} if isinstance(value, str) else value
