"""The section ``steering``: other edits than pruning, found and chosen on as much data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from prunelib.errors import UserError
from prunelib.own_functions import import_function
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
from prunelib.recipe.methods import STEERING, SteeringMethod

#: What is added to the name of a method that was chosen by what is reported.
ON_REPORT = "_chosen_on_report"
#: What messages call a function of the user's that steers.
OWN_STEERING = "steering method"


class SteeringMethodSpec(Spec):
    """One way to steer, with what is tried of it."""

    #: ``iti``, ``caa``, ``sadi_hidden``, ``sadi_neuron``, ``sadi_head``, or a function of the
    #: user's: ``package.module:function``.
    method: Annotated[str, one_of(OWN_STEERING, STEERING, own=True)]
    #: What it is called in the tables; the method's name unless several use that.
    name: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = None
    #: Numbers of heads, neurons or dimensions that are tried; by default those of its authors.
    #: None for ``caa``, which tries the layers of ``search.layers``, as a function of the user's
    #: does without them.
    sizes: Annotated[tuple[Count, ...] | None, BeforeValidator(
        lambda given: None if given is None else one_or_more(given))] = None
    #: The largest strength that is tried: the multiplier of ``caa``, α of ``iti``, δ of ``sadi``.
    #: As many are tried, in equal steps from nothing, as makes the search as large as that for a
    #: ranking of components. A function of the user's needs it.
    strongest: Annotated[float | None, Field(gt=0)] = None
    #: A control: in half of the pairs the right and the wrong answer change places.
    shuffled: bool = False

    @model_validator(mode="after")
    def _fits_method(self) -> SteeringMethodSpec:
        if self.sizes is not None and not (
                self.sizes and (self.own or STEERING[self.method].sizes)):
            raise UserError(f"steering: sizes is empty, or {self.method} has none: leave it out")
        if self.own and self.strongest is None:
            raise UserError(f"steering: '{self.method}' needs strongest, the largest strength that "
                            "is tried")
        check_free_name("steering", self.label)
        return self

    @property
    def own(self) -> bool:
        """Whether it is a function of the user's."""
        return ":" in self.method

    @property
    def known(self) -> SteeringMethod:
        """What the rest of prunelib asks about it; of a user's own the recipe says most of that.

        Raises :class:`UserError` if a user's own cannot be imported.
        """
        if not self.own:
            return STEERING[self.method]
        function = import_function(OWN_STEERING, self.method)
        return SteeringMethod(self.method, None, self.sizes or (), self.strongest or 0.0,
                              bool(getattr(function, "needs_probes", False)))

    @property
    def label(self) -> str:
        """What it is called in the tables, unless it is chosen by what is reported."""
        return self.name or self.method + ("_shuffled" if self.shuffled else "")


def _method(value: Any) -> Any:
    return {"method": value} if isinstance(value, str) else value


class SteeringSpec(Spec):
    """Activation steering (formulas.md §5.6), on the same tables as pruning.

    Each method is found on pairs of a right and a wrong answer and searched as ``search`` says,
    with as many candidates as a ranking of components has: layers × rates.
    """

    #: Each a name or a section.
    methods: Annotated[
        tuple[Annotated[SteeringMethodSpec, BeforeValidator(_method)], ...],
        BeforeValidator(one_or_more), Field(min_length=1),
    ] = tuple(SteeringMethodSpec(method=name) for name in STEERING)
    #: Task whose prompts are the pairs', or several in turn, or ``each_task``.
    proxy: Proxy = "vowel_counting"
    #: Prompts, each with a right and a wrong answer.
    prompts: Annotated[int, Field(ge=2)] = 100
    #: Demonstrations in each prompt.
    shots: Shots = 3
    #: Split that demonstrations come from, as in ``evaluate``; none that is reported.
    demonstrations: str | None = None
    #: Of the prompts; each seed makes steerings of its own.
    seeds: Seeds = (0,)
    #: The wrong answer: ``wrong`` is another of the task's options, or an answer to another input;
    #: ``copied`` is the answer of a demonstration, which steers against copying.
    against: Literal["wrong", "copied"] = "wrong"
    #: By which examples a candidate is chosen. ``report`` are the very prompts that are reported,
    #: as SADI's released code does: the numbers are then too good, the tables say so in the name of
    #: the method, and a run warns.
    choose_on: Literal["search", "report"] = "search"
    #: Prompts of one unit of work.
    block: Count = 25

    @field_validator("methods")
    @classmethod
    def _named(cls, methods: tuple[SteeringMethodSpec, ...]) -> tuple[SteeringMethodSpec, ...]:
        labels = [method.label for method in methods]
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise UserError(f"steering: two are called '{twice[0]}': give each a name")
        return methods

    @model_validator(mode="after")
    def _copies(self) -> SteeringSpec:
        if self.against == "copied" and not self.shots:
            raise UserError("steering: against: copied is about answers of demonstrations, and "
                            "shots is 0: use against: wrong")
        return self

    def label(self, method: SteeringMethodSpec) -> str:
        """What a method is called in the tables."""
        return method.label + (ON_REPORT if self.choose_on == "report" else "")
