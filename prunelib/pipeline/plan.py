"""What a recipe would do: counts, what is there already, and what it would cost."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunelib.attribution import quadrature
from prunelib.attribution.iterated_path import ROUNDS
from prunelib.errors import UserError
from prunelib.models import ModelInfo, describe
from prunelib.models.loading import load_tokenizer
from prunelib.pipeline.driver import prepare
from prunelib.pipeline.progress import expected_units, neuron_units
from prunelib.pipeline.stages.evaluation import capability_texts
from prunelib.pipeline.stages.importance_size import importance_tokens
from prunelib.pipeline.stages.registry import stages
from prunelib.pipeline.units.model_run import ModelRun, finished
from prunelib.recipe.base import AttributionSpec, ModelSpec
from prunelib.recipe.recipe import Recipe
from prunelib.results.storage.files import open_files
from prunelib.results.storage.store import Store
from prunelib.tasks import Split, draw

#: A backward pass costs about as much as the forward pass over the same layers, when no weight
#: gradients are computed.
_FORWARD_AND_BACKWARD = 2
#: Nodes that most layers end with; layers near the input need more, so this is a lower bound.
_USUAL_NODES = 9


@dataclass(frozen=True)
class Line:
    """One model and stage of a plan.

    Attributes:
        units: how many units there are at least; if ``exact``, at most.
        exact: whether it is known that there are no more.
        done: units whose files are there.
        teraflop: floating-point work of what is left, in 10^12 operations.
        seconds: what is left on one worker, by measured work; None if none was measured.
        other: whether other models were measured, not this one: a rougher figure.
    """

    model: str
    stage: str
    units: int
    exact: bool
    done: int
    teraflop: float
    seconds: float | None
    other: bool = False

    @property
    def units_text(self) -> str:
        """The count for people: ``8`` or ``at least 8``."""
        return str(self.units) if self.exact else f"at least {self.units}"


def estimate(recipe: Recipe, results: str | Path | None = None,
             earlier: Sequence[str | Path] = ()) -> list[Line]:
    """Plan a recipe without running anything.

    Args:
        recipe: what would run.
        results: where some of it may be done already.
        earlier: other results, whose measured times are used as well.

    Raises:
        UserError: as a run would.
    """
    infos = prepare(recipe)
    store = None
    if results is not None and open_files(results).exists(""):
        store = Store.open(results, create=False)
    measured = [*([store] if store else []), *(Store.open(e, create=False) for e in earlier)]
    speeds = _speeds(measured)
    lines = []
    for spec, info in zip(recipe.models, infos, strict=True):
        known, ended = _known(recipe, spec, info, store) if store else ({}, False)
        for stage, (units, flop) in _totals(recipe, info).items():
            total, done = known.get(stage, (units, 0))
            if recipe.importance and not ended:  # which returns to canaries and evaluations
                total = max(total, units)
            if not total:
                continue
            exact = stage != "attribute" or "search" in known or not recipe.attribution
            left = max(0, total - done)
            teraflop = flop * left / max(1, total) / 1e12
            speed = speeds.get((stage, info.id), speeds.get((stage, None)))
            seconds = 0.0 if not left else None if speed is None else teraflop * speed
            lines.append(Line(info.id, stage, total, exact, done, teraflop, seconds,
                              other=bool(left) and (stage, info.id) not in speeds))
    return lines


def _known(recipe: Recipe, spec: ModelSpec, info: ModelInfo, store: Store
           ) -> tuple[dict[str, tuple[int, int]], bool]:
    """Stage → (units, done) as far as finished stages tell which units there are; is that all?"""
    counts: dict[str, tuple[int, int]] = {}
    steps: Iterator[list[Any]] = stages(
        ModelRun(recipe, spec, info, store, record=False))
    for units in steps:
        there = finished(store, units)
        for unit in units:
            total, done = counts.get(unit.stage, (0, 0))
            counts[unit.stage] = (total + 1, done + (unit.id in there))
        if any(unit.id not in there for unit in units):
            return counts, False
    return counts, True


def _speeds(stores: list[Store]) -> dict[tuple[str, str | None], float]:
    """(stage, model) → seconds per teraflop of finished runs; model ``None`` is their mean.

    Whole stages are compared with what :func:`_totals` says of them, so that what it leaves out
    (quadrature levels beyond the first, starts, tokens after the first) is part of the speed.
    """
    found: dict[tuple[str, str | None], list[float]] = defaultdict(list)
    for store in stores:
        seconds: Counter[tuple[str, str, str]] = Counter()
        did: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        linked: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        for row in store.read("units").to_pylist():
            seconds[key := (row["run"], row["model"], row["stage"])] += row["seconds"]
            did[key].add(row["unit_id"])
        for row in store.read("run_units").to_pylist():
            linked[row["run"], row["model"], row["stage"]].add(row["unit_id"])
        for run in store.read("runs").to_pylist():
            if run["status"] != "done":
                continue
            for model, stage, flop in _stages_of(run["resolved"]):
                key = (run["run"], model, stage)
                if took := seconds[key]:
                    share = len(did[key]) / len(linked[key])  # the rest was there already
                    for name in (model, None):
                        found[stage, name].append(took / (share * flop / 1e12))
    return {key: sum(values) / len(values) for key, values in found.items()}


def _stages_of(resolved: str) -> Iterator[tuple[str, str, float]]:
    """Model, stage and operations of an earlier recipe, of models that are still here."""
    recipe = Recipe.model_validate_json(resolved)
    for spec in recipe.models:
        with contextlib.suppress(UserError):
            totals = _totals(recipe, describe(spec.id, spec.revision, spec.trust_remote_code))
            yield from ((spec.id, stage, flop) for stage, (_, flop) in totals.items())


def _totals(recipe: Recipe, info: ModelInfo) -> dict[str, tuple[int, float]]:
    """Stage → (units, floating-point operations), from the recipe alone."""
    chosen = range(info.layers) if recipe.search.layers == "all" else recipe.search.layers
    above = sum(info.layers - layer for layer in chosen) / info.layers
    per_token = info.bytes  # two operations per parameter; shipped weights have two bytes each
    search, evaluate = recipe.search, recipe.evaluate
    tokenizer = load_tokenizer(info)

    @functools.cache
    def tokens(task: str, split: Split, shots: int) -> float:
        known = recipe.task(task)
        count = min(20, len(known.split(split)))
        some = draw(known, split=split, shots=shots, seed=0, count=count,
                    prompt_format=recipe.format_on(split))
        return sum(len(tokenizer(e.prompt)["input_ids"]) for e in some) / len(some)

    def passes(spec: AttributionSpec) -> float:
        if spec.method == "random":
            return 0.0
        if spec.method == "iterated_path":
            return above * (ROUNDS + quadrature.NODES[0]) * _FORWARD_AND_BACKWARD
        if spec.method != "integrated_gradients":
            return 1.0
        if spec.path == "single":
            return above * info.width
        return (1.0 if spec.path == "joint" else above) * _USUAL_NODES * _FORWARD_AND_BACKWARD

    study = importance_tokens(recipe, info, len(tokenizer), tokens)
    arms = recipe.arms()
    scored = sum(arm.spec.prompts * tokens(arm.task, "attribute", arm.spec.shots)
                 * passes(arm.spec) for arm in arms)
    searched = [tokens(recipe.search_task(arm), search.split, search.shots)
                * (1 + recipe.controls.random * arm.main) for arm in arms]
    reported = sum(tokens(task, "report", shots)
                   for task in evaluate.tasks for shots in evaluate.shots)
    neurons = neuron_units(recipe, info.layers)
    beside = 0.0  # prompts and texts, in tokens, of what is not reported; once for each ablation
    asked = 0
    if arms and (capability := evaluate.capability) is not None:
        texts = capability_texts(recipe, capability).content
        some = texts[:: max(1, len(texts) // 20)]
        beside = len(texts) / len(some) * sum(
            len(tokenizer(before + text, verbose=False)["input_ids"]) for before, text in some)
        beside += capability.examples * sum(tokens(task, "report", capability.shots)
                                            for task in capability.tasks)
        asked = neurons["canary"] * (1 + len(capability.tasks))
    share = (neurons["evaluate"] - asked) / (len(evaluate.tasks) * len(evaluate.shots))
    through: dict[str, float] = {
        "attribute": scored,
        "search": len(chosen) * len(search.rates) * search.examples * sum(searched) * 2,
        "canary": neurons["canary"] * searched[0] if arms else 0.0,
        "evaluate": share * reported * evaluate.examples + neurons["canary"] * beside,
    }
    return {stage: (units, (through[stage] + study.get(stage, 0.0)) * per_token)
            for stage, units in expected_units(recipe, info.layers, info.heads).items()}
