"""The section ``search``: how an ablation is chosen from a ranking."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, field_validator, model_validator

from prunelib.errors import UserError
from prunelib.recipe.base import Count, Proxy, Rate, Shots, Spec, once, one_of, one_or_more
from prunelib.recipe.methods import STRATEGIES


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
    return once(layers)


class SearchSpec(Spec):
    """The grid over layers and rates, on held-out examples of a proxy."""

    #: Layers that are tried: numbers from 0, or ``all``.
    layers: Annotated[Literal["all"] | tuple[int, ...], BeforeValidator(_layers)] = "all"
    #: Shares of a layer's components that are switched off.
    rates: Annotated[tuple[Rate, ...], BeforeValidator(one_or_more)] = (
        0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4)
    #: Task whose examples decide, or several in turn; by default the one that was attributed.
    proxy: Proxy | None = None
    #: ``attribute``: the very prompts that were attributed; else examples kept for the search.
    split: Literal["search", "attribute"] = "search"
    #: Examples of each cell of the grid.
    examples: Count = 200
    #: Demonstrations in each example.
    shots: Shots = 3
    #: Split that demonstrations come from, as in ``evaluate``; none that is reported.
    demonstrations: str | None = None
    #: Of the examples.
    seed: int = 0
    #: Which cells are tried, and on how many examples.
    strategy: Annotated[str, one_of("search strategy", STRATEGIES)] = "exhaustive"
    #: Which cell is chosen: the ``best``, as in both neuron papers; the smallest rate of its
    #: layer that loses no more than one paired standard error against it; or the one whose gain is
    #: most certainly ``shared`` by several proxies, none of which loses.
    choice: Literal["best", "smallest_within_error", "shared"] = "smallest_within_error"
    #: What cells are compared by: ``margin`` also sees how sure right answers are.
    statistic: Literal["accuracy", "margin"] = "accuracy"
    #: Whether nothing is switched off where no cell beats the untouched model: it is a
    #: ``candidate``, or ``excluded``, as the papers always prune.
    nothing: Literal["candidate", "excluded"] = "candidate"
    #: What switching a neuron off means where it has a bias: nothing is left of the ``neuron``, or
    #: its ``weight_row`` is zero and its bias stays (formulas.md §6, row 5).
    prune: Literal["neuron", "weight_row"] = "neuron"

    @field_validator("rates")
    @classmethod
    def _ascending(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if not rates:
            raise UserError("search.rates is empty: give at least one rate")
        return tuple(sorted(set(rates)))

    @model_validator(mode="after")
    def _shared(self) -> SearchSpec:
        if self.choice == "shared" and self.strategy != "exhaustive":
            raise UserError("search.choice: shared compares all cells on all examples: use "
                            f"strategy: exhaustive, not {self.strategy}")
        return self
