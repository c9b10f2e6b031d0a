"""What a recipe would do: counts, what is there already, and what it would cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunelib.config import ModelSpec, Recipe
from prunelib.models import ModelInfo
from prunelib.models.loading import load_tokenizer
from prunelib.pipeline.driver import prepare
from prunelib.pipeline.progress import expected_units
from prunelib.pipeline.stages import ModelRun
from prunelib.results.files import open_files
from prunelib.results.store import Store
from prunelib.tasks import Split, draw, get_task

#: A backward pass costs about as much as the forward pass over the same layers, when no weight
#: gradients are computed.
_FORWARD_AND_BACKWARD = 2
#: Nodes that most layers end with; layers near the input need more, so this is a lower bound.
_USUAL_NODES = 9


@dataclass(frozen=True)
class Line:
    """One model and stage of a plan.

    Attributes:
        units: how many units there are at least.
        exact: whether it is known that there are no more.
        done: units whose files are there.
        teraflop: floating-point work of what is left, in 10^12 operations.
        seconds: what is left on one worker, by measured units; None if none was measured.
    """

    model: str
    stage: str
    units: int
    exact: bool
    done: int
    teraflop: float
    seconds: float | None

    @property
    def units_text(self) -> str:
        """The count for people: ``8`` or ``at least 8``."""
        return str(self.units) if self.exact else f"at least {self.units}"


def estimate(recipe: Recipe, results: str | Path | None = None) -> list[Line]:
    """Plan a recipe without running anything. Raises :class:`UserError` like a run would."""
    infos = prepare(recipe)
    store = None
    if results is not None and open_files(results).exists(""):
        store = Store.open(results, create=False)
    lines = []
    for spec, info in zip(recipe.models, infos, strict=True):
        known = _known(recipe, spec, info, store) if store else {}
        measured = _measured(info, store) if store else {}
        for stage, (units, flop) in _totals(recipe, info).items():
            total, done = known.get(stage, (units, 0))
            exact = stage != "attribute" or "search" in known
            left = max(0, total - done)
            seconds = measured.get(stage)
            lines.append(Line(info.id, stage, total, exact, done,
                              flop * left / max(1, total) / 1e12,
                              0.0 if not left else None if seconds is None else seconds * left))
    return lines


def _known(recipe: Recipe, spec: ModelSpec, info: ModelInfo, store: Store
           ) -> dict[str, tuple[int, int]]:
    """Stage → (units, done) as far as finished stages tell which units there are."""
    counts: dict[str, tuple[int, int]] = {}
    steps: Iterator[list[Any]] = ModelRun(recipe, spec, info, store, record=False).stages()
    for units in steps:
        if not units:
            continue
        there = store.done(units[0].table)
        done = sum(unit.id in there for unit in units)
        before = counts.get(units[0].stage, (0, 0))
        counts[units[0].stage] = (before[0] + len(units), before[1] + done)
        if done < len(units):
            break
    return counts


def _measured(info: ModelInfo, store: Store) -> dict[str, float]:
    """Stage → mean seconds of a finished unit of this model."""
    rows = store.read("units").to_pylist()
    seconds: dict[str, list[float]] = {}
    for row in rows:
        if row["model"] == info.id and row["status"] == "done":
            seconds.setdefault(row["stage"], []).append(row["seconds"])
    return {stage: sum(values) / len(values) for stage, values in seconds.items()}


def _totals(recipe: Recipe, info: ModelInfo) -> dict[str, tuple[int, float]]:
    """Stage → (units, floating-point operations), from the recipe alone."""
    layers = info.layers if recipe.search.layers == "all" else len(recipe.search.layers)
    chosen = range(info.layers) if recipe.search.layers == "all" else recipe.search.layers
    above = sum(info.layers - layer for layer in chosen) / info.layers
    per_token = info.bytes  # two operations per parameter; shipped weights have two bytes each
    attribution, search, evaluate = recipe.attribution, recipe.search, recipe.evaluate
    rankings = 1 + recipe.controls.random
    ablations = 2 + 2 * recipe.controls.random

    def tokens(task: str, split: Split, shots: int) -> float:
        some = draw(get_task(task), split=split, shots=shots, seed=0, count=20)
        tokenizer = load_tokenizer(info)
        return sum(len(tokenizer(e.prompt)["input_ids"]) for e in some) / len(some)

    scaled = tokens(attribution.proxy, "attribute", attribution.shots)
    searched = tokens(search.proxy, "search", search.shots)
    reported = sum(tokens(task, "report", shots)
                   for task in evaluate.tasks for shots in evaluate.shots)
    cells = layers * len(search.rates) * rankings
    units = expected_units(recipe, info.layers)
    return {
        "attribute": (
            units["attribute"],
            attribution.prompts * scaled * above * _USUAL_NODES * _FORWARD_AND_BACKWARD
            * per_token,
        ),
        "search": (units["search"], cells * search.examples * searched * 2 * per_token),
        "canary": (units["canary"], ablations * searched * per_token),
        "evaluate": (
            units["evaluate"],
            (ablations + 1) * reported * evaluate.examples * len(evaluate.seeds) * per_token,
        ),
    }
