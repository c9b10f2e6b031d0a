"""What a study is: what a section of a recipe asks for, in one file.

A study says whether a recipe and a model fit it, which units it asks for, how many they are, what
they cost, and what came out. The driver, the plan and the progress of a run know no study by name:
they ask those that :mod:`prunelib.pipeline.stages.registry` finds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from prunelib.models import ModelInfo
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.steps import Step
from prunelib.recipe.base import Spec
from prunelib.recipe.recipe import Recipe
from prunelib.tasks import Split
from prunelib.vocabulary import Stage

if TYPE_CHECKING:
    import duckdb

#: Mean length of a task's prompts in tokens, by task, split and number of shots.
Lengths = Callable[[str, Split, int], float]


@dataclass(frozen=True)
class Count:
    """How many units there will be: as far as it can be known before any is done."""

    least: int = 0
    most: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.least + other.least, self.most + other.most)

    @property
    def exact(self) -> bool:
        """Whether it is known."""
        return self.least == self.most


def exactly(units: int) -> Count:
    """A count that is known."""
    return Count(units, units)


@dataclass(frozen=True)
class SummaryTable:
    """A table for people: its title, its columns (the first holds names), its rows.

    ``notes`` are sentences below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """What came out of a study, in a few small tables, and a question (SQL) to go on with."""

    caption: str
    tables: tuple[SummaryTable, ...]
    question: str


class Study(ABC):
    """A study: one subclass, one instance ``STUDY`` in its file, one line in the registry."""

    #: Key of the recipe that asks for it.
    section: ClassVar[str]
    #: What the section holds.
    settings: ClassVar[type[Spec]]

    def check(self, recipe: Recipe) -> None:  # noqa: B027 - there may be nothing to check
        """Raise :class:`~prunelib.errors.UserError` for what the section alone cannot see."""

    def check_model(self, recipe: Recipe, info: ModelInfo) -> None:  # noqa: B027
        """Raise :class:`~prunelib.errors.UserError` if a model cannot be studied."""

    @abstractmethod
    def steps(self, run: ModelRun) -> Step[None]:
        """The study of one model."""

    @abstractmethod
    def counts(self, recipe: Recipe, layers: int, heads: int) -> dict[Stage, Count]:
        """Stage → units of a model with so many layers, and heads in each of them."""

    @abstractmethod
    def tokens(self, recipe: Recipe, info: ModelInfo, lengths: Lengths) -> dict[Stage, float]:
        """Stage → prompt tokens that go forward through a model, or work that costs as much."""

    def in_order(self, recipe: Recipe) -> bool:
        """Whether every stage is over when the next one begins, and the last is asked for whole."""
        return False

    def summary(self, connection: duckdb.DuckDBPyConnection, run: str) -> Summary | None:
        """What came out, from the views; ``None`` if nothing has yet."""
        return None


def percent(row: dict[str, Any], name: str) -> str:
    """A share with its interval if it has one, such as ``12.3 (10.1–14.5)``."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    value = f"{100 * row[name]:.1f}"
    return value if low is None else f"{value} ({100 * low:.1f}–{100 * high:.1f})"


def points(row: dict[str, Any], name: str = "difference") -> str:
    """A difference in percentage points with its interval if it has one, or nothing."""
    if row[name] is None:
        return ""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    value = f"{100 * row[name]:+.1f}"
    return value if low is None else f"{value} ({100 * low:+.1f}, {100 * high:+.1f})"
