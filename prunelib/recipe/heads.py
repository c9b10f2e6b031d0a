"""The sections of a recipe that study attention heads and FFNs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from prunelib.errors import UserError
from prunelib.recipe.base import Count, Rate, Seeds, Spec, one_of, section
from prunelib.tasks import FORMATS, LABELS, MAX_SHOTS

#: Scores by which heads or FFNs can be removed, least important first: the variants of gradient
#: importance (formulas.md §3.2), and what removing the component alone costs (§3.1).
RANKINGS = ("gradient_per_token", "gradient_gate", "gradient_signed", "oracle")
#: By whose importance components are removed, each on every evaluated task and number of shots:
#: the task's own; the mean over all tasks; that of the other task whose ranking is most, or least,
#: like the task's own; none (random orders).
ORDERS = ("own", "aggregate", "closest", "farthest", "random")


class RemovalSpec(Spec):
    """Removing heads and FFNs, least important first, in growing shares (formulas.md §3.4)."""

    #: Shares of the model's heads, and of its FFNs, that are removed (rounded down).
    fractions: tuple[Rate, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    #: Which score orders heads, and FFNs; ``none`` leaves that kind alone. ``gradient_gate`` is
    #: the formula as written (Eq. 8), ``gradient_per_token`` what the authors' code computes.
    heads: Annotated[str, one_of("ranking", (*RANKINGS, "none"))] = "gradient_gate"
    #: The same for FFNs.
    ffns: Annotated[str, one_of("ranking", (*RANKINGS, "none"))] = "oracle"
    #: By whose importance components are removed.
    orders: tuple[Annotated[str, one_of("order", ORDERS)], ...] = ORDERS
    #: Heads and FFNs at once, every pair of fractions, in the task's own order.
    joint: bool = False
    #: How many random orders there are.
    random: Count = 3


class ImportanceSpec(Spec):
    """How much a model needs each head and FFN (formulas.md §3): task by task, as it is evaluated.

    Importance is measured for every task and number of shots of ``evaluate``, on splits that
    are not reported.
    """

    #: Prompts of the attribute split behind gradient importance.
    prompts: Count = 100
    #: Kinds of component that are removed one at a time (oracle importance). The paper does so
    #: with FFNs only, as heads are too many in a model of its size.
    oracle: tuple[Literal["head", "ffn"], ...] = ("ffn",)
    #: Prompts of the search split behind oracle importance.
    examples: Count = 100
    #: Of the prompts and the random sequences.
    seed: int = 0
    #: Random sequences behind prefix-matching and copying scores (formulas.md §3.3); 0 for none.
    sequences: Annotated[int, Field(ge=0)] = 100
    removal: Annotated[RemovalSpec | None, BeforeValidator(section)] = RemovalSpec()

    @model_validator(mode="after")
    def _ranked(self) -> ImportanceSpec:
        if self.removal and self.removal.heads == self.removal.ffns == "none":
            raise UserError("importance: removal.heads and removal.ffns are none, so nothing is "
                            "removed: rank one of them, or use removal: false")
        for kind, ranking in (("head", "heads"), ("ffn", "ffns")):
            if (self.removal and getattr(self.removal, ranking) == "oracle"
                    and kind not in self.oracle):
                raise UserError(f"importance: removal.{ranking} is oracle, so oracle needs to "
                                f"name '{kind}'")
        return self


class InContextHeadsSpec(Spec):
    """Heads that carry the labels of demonstrations, and what they do (formulas.md §4).

    Prompts have two classes whose names mean nothing, and as many demonstrations of each. Heads
    are found on the attribute split of ``task``; everything else is measured on report splits.
    """

    #: Task on which heads are found; of more than two classes the two largest are kept.
    task: str = "upper_or_lower"
    #: Tasks on which removing them is reported too.
    held_out: tuple[str, ...] = ("loud_or_quiet", "number_or_word")
    #: What the two classes are called.
    labels: tuple[str, str] = LABELS
    #: Demonstrations of each label.
    each: Annotated[int, Field(ge=1, le=MAX_SHOTS)] = 4
    #: Prompts of each seed, behind scores and behind each accuracy that is reported.
    prompts: Annotated[int, Field(ge=2)] = 200
    #: Of the prompts.
    seeds: Seeds = (0,)
    #: How many heads of each score are candidates, and the most heads of each label.
    top: Count = 10
    #: The most heads of each label that are removed.
    heads: Count = 6
    #: How many random sets of as many other heads are removed as well.
    random: Annotated[int, Field(ge=0)] = 5
    #: Of tasks that have no format of their own.
    format: Annotated[str, one_of("prompt format", FORMATS)] = "colon"
    #: Majority-label and recency bias, before and after both mitigations (formulas.md §4.4).
    biases: bool = True
    #: Orders of the demonstrations behind recency bias.
    orders: Annotated[int, Field(ge=2)] = 6
    #: The constant a_c by which minority labels weigh more.
    strength: Annotated[float, Field(ge=0)] = 0.03
    #: What a head's output without positions does to its own.
    mode: Literal["replace", "add"] = "replace"

    @field_validator("labels")
    @classmethod
    def _different(cls, labels: tuple[str, str]) -> tuple[str, str]:
        if labels[0] == labels[1] or not all(labels):
            raise UserError(f"in_context_heads.labels: '{labels[0]}' and '{labels[1]}': give two "
                            "different labels")
        return labels

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task on which something is measured, that of the heads first."""
        return tuple(dict.fromkeys((self.task, *self.held_out)))
