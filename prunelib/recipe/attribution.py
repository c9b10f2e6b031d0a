"""The section ``attribution``: which components are scored, and how."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from prunelib.errors import UserError
from prunelib.recipe.base import (
    Count,
    Proxy,
    Seeds,
    Shots,
    Spec,
    check_free_name,
    one_of,
    one_or_more,
)
from prunelib.recipe.methods import METHODS, OBJECTIVES, PATHS, Method, method_of
from prunelib.vocabulary import REFERENCE_METHODS

#: Prompts that are attributed at most where a recipe says nothing of their number.
_MOST_PROMPTS = 400
#: Stands for every evaluated task in turn: each gets an ablation of its own.
EACH_TASK = "each_task"


class ObjectiveSpec(Spec):
    """The scalar of the logits that attribution differentiates (formulas.md §6, row 1).

    ``copy_shift`` has four switches: how the demonstrations' answers are joined, in which space
    tokens are scored, whether only the gold answer counts, and whether only the first token of
    an answer counts or all of them, teacher-forced. ``max_logit`` needs no labels.
    """

    #: ``copy_shift``, ``max_logit``, or a function of the user's: ``package.module:function``.
    name: Annotated[str, one_of("objective", OBJECTIVES, own=True)] = "copy_shift"
    #: How the demonstrations' answers are joined.
    aggregate: Literal["mean", "sum", "max"] = "mean"
    #: In which space tokens are scored.
    space: Literal["probability", "log_probability", "logit"] = "probability"
    #: Whether only the gold answer counts.
    gold_only: bool = False
    #: Whether the first token of an answer counts, or all of them.
    tokens: Literal["first", "all"] = "first"

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
    #: How components are scored; ``random`` draws their order. Or a function of the user's:
    #: ``package.module:function``.
    method: Annotated[str, one_of("method", METHODS, own=True)] = "integrated_gradients"
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
    #: Task whose prompts are attributed, or several in turn, or ``each_task``.
    proxy: Proxy = "vowel_counting"
    #: How many prompts are attributed to begin with.
    prompts: Count = 100
    #: Of the layers in which the two halves of the prompts agree on less than ``overlap``, more
    #: are attributed, up to so many: 400, or ``prompts`` where that is given.
    max_prompts: Count = _MOST_PROMPTS
    #: Share of the components which two halves of the prompts have to agree on, of those that the
    #: rates of the search switch off (mean over rates and ways to halve).
    overlap: Annotated[float, Field(ge=0, le=1)] = 0.7
    #: How scores of prompts become those of components: their ``mean``, or the ``trimmed`` mean
    #: over queries, without the fifth at either end.
    aggregate_prompts: Literal["mean", "trimmed"] = "mean"
    #: Which prompts of the task: drawn at random, or among those that the untouched model
    #: answers correctly or wrongly.
    choose: Literal["random", "correct", "wrong"] = "random"
    #: Demonstrations in each prompt.
    shots: Shots = 3
    #: Split that demonstrations come from, as in ``evaluate``; none that is reported.
    demonstrations: str | None = None
    #: Of the prompts; each seed makes an ablation of its own.
    seeds: Seeds = (0,)
    #: By default each prompt has a few quadrature nodes of its own, and a layer gets more where
    #: their error is larger than that of the sample of prompts. With a tolerance all prompts have
    #: the same nodes (Clenshaw-Curtis), which are raised until the estimated relative error of the
    #: layer's mean scores is below it.
    tolerance: Annotated[float, Field(gt=0)] | None = None
    #: The most quadrature nodes of a layer: from 4 on, or from 9 on with a tolerance.
    max_nodes: Annotated[int, Field(ge=4)] = 129
    #: Prompts of one unit of work.
    block: Count = 25

    @model_validator(mode="before")
    @classmethod
    def _limit(cls, content: Any) -> Any:
        """A number of prompts that is given is meant; without one it may grow."""
        if isinstance(content, dict) and content.get("max_prompts") is None:
            return {**content, "max_prompts": content.get("prompts", _MOST_PROMPTS)}
        return content

    @field_validator("name")
    @classmethod
    def _free(cls, name: str | None) -> str | None:
        check_free_name("attribution", name)
        return name

    @model_validator(mode="after")
    def _fits_method(self) -> AttributionSpec:
        moved = self.model_dump(exclude_defaults=True, include={"path", "variant", "projection"})
        if self.objective.tokens == "all":
            moved["objective.tokens"] = "all"
        for key in (key for key in moved if key not in method_of(self.method).takes):
            takers = [name for name, method in METHODS.items() if key in method.takes]
            raise UserError(f"attribution: {key} is for method {' or '.join(takers)}, "
                            f"not for {self.method}")
        self._check_precision()
        if self.variant == "released" and "variant" not in self.computation.takes:
            raise UserError(f"attribution: path {self.path} has no gradients, so no variant "
                            "released")
        if self.label in REFERENCE_METHODS:
            raise UserError(f"attribution: '{self.label}' is what the tables call a control: give "
                            f"method {self.method} a name")
        return self

    def _check_precision(self) -> None:
        if self.tolerance is not None and self.max_nodes < 9:
            raise UserError(f"attribution: a tolerance takes 9 nodes or more, not max_nodes: "
                            f"{self.max_nodes}")
        if self.max_prompts < self.prompts:
            raise UserError(f"attribution: max_prompts: {self.max_prompts} is below prompts: "
                            f"{self.prompts}")
        moved = self.model_dump(exclude_defaults=True, include={"overlap", "aggregate_prompts"})
        if moved and not self.by_prompt:
            raise UserError(f"attribution: {next(iter(moved))} is for integrated gradients without "
                            "a tolerance, whose prompts are scored one by one")
        if self.most_prompts < self.max_prompts not in (self.prompts, _MOST_PROMPTS):
            raise UserError("attribution: max_prompts is for integrated gradients without a "
                            "tolerance, and choose: random; others take the number of prompts")

    @property
    def by_prompt(self) -> bool:
        """Whether each prompt has scores of its own, and nodes and prompts are added as needed."""
        return self.computation.quadrature and self.tolerance is None

    @property
    def most_prompts(self) -> int:
        """How many prompts are attributed at most."""
        return self.max_prompts if self.by_prompt and self.choose == "random" else self.prompts

    @property
    def computation(self) -> Method:
        """What is computed: a path may be another computation than its method."""
        found = PATHS.get(self.path, method_of(self.method))
        if found.quadrature and self.tolerance is not None:
            return replace(found, passes=found.passes_to_tolerance)
        return found

    @property
    def own(self) -> bool:
        """Whether its method is a function of the user's."""
        return ":" in self.method

    @property
    def label(self) -> str:
        """What it is called in the tables."""
        return self.name or self.method


def none_or_more(value: Any) -> Any:
    """No attribution (``none``), one, or several."""
    return () if value in (None, "none") else one_or_more(value)


def named_method(value: Any) -> Any:
    """An attribution that is given by its method alone."""
    return {"method": value} if isinstance(value, str) else value
