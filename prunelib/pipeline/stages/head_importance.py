"""Importance of heads and FFNs, and what is left when the least important are removed.

The study of papers.md §3 over the same units as everything else: a component alone, or a share of
them, is an ablation, and what a model answers under it is a prediction. Importance is measured on
the splits that are not reported, for every evaluated task and number of shots.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunelib.components import Component, Site
from prunelib.engines.base import Canary
from prunelib.heads import ranking
from prunelib.identity import seed_of
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.models import ModelInfo
from prunelib.pipeline.stages.evaluation import asking, canaries, canary_answers
from prunelib.pipeline.stages.search import Entry, record_ablations
from prunelib.pipeline.units.model_run import ModelRun, Step
from prunelib.pipeline.units.rows import Row, examples_of, score_row
from prunelib.pipeline.units.unit import ImportanceJob, InductionJob, Unit
from prunelib.recipe.heads import ImportanceSpec, RemovalSpec

if TYPE_CHECKING:
    from prunelib.pipeline.units.worker import Worker

#: A task at a number of shots.
Setting = tuple[str, int]
Array = NDArray[np.float64]
#: Importance of every component of a kind in every setting, ``[layers, components]`` each.
Scores = dict[Setting, Array]


@dataclass(frozen=True)
class Removal:
    """A share of heads and FFNs that is removed, and by whose order: a row of ``removals``."""

    removed_heads: tuple[ranking.Place, ...]
    removed_ffns: tuple[ranking.Place, ...]
    heads: float
    ffns: float
    order: str
    task: str | None
    shots: int | None
    ranked_by: str | None
    seed: int | None = None

    @functools.cached_property
    def ablation(self) -> Ablation:
        """The components that are off."""
        return Ablation.of([*(Component(layer, "head", index)
                              for layer, index in self.removed_heads),
                            *(Component(layer, "ffn", index)
                              for layer, index in self.removed_ffns)])


@dataclass(frozen=True)
class _Order:
    """Components of one kind, least important first, and where the order holds."""

    places: tuple[ranking.Place, ...]
    task: str | None = None
    shots: int | None = None
    ranked_by: str | None = None
    seed: int | None = None


def importance(run: ModelRun) -> Iterator[list[Unit]]:
    """Score every head and FFN, then remove the least important in growing shares."""
    spec = run.recipe.importance
    if spec is None:
        return
    settings = [(task, shots) for task in run.recipe.evaluate.tasks
                for shots in run.recipe.evaluate.shots]
    gradients = {s: run.unit(ImportanceJob(
        run.prompts(s[0], "attribute", s[1], spec.seed, range(spec.prompts)), run.spec.dtype))
        for s in settings}
    beside = [run.unit(InductionJob(spec.sequences, spec.seed, run.spec.dtype), priority=1)
              ] if spec.sequences else []
    yield [*gradients.values(), *beside]
    oracle = yield from _oracle(run, spec, settings)
    if spec.removal is None:
        return
    names: dict[Site, str] = {"head": spec.removal.heads, "ffn": spec.removal.ffns}
    scores = {
        site: {} if name == "none" else oracle[site] if name == "oracle" else
        _read_scores(run, gradients, site, name)
        for site, name in names.items()}
    yield from _removal(run, spec.removal, settings, scores)


def _oracle(run: ModelRun, spec: ImportanceSpec, settings: Sequence[Setting]
            ) -> Step[dict[Site, Scores]]:
    """Accuracy lost without each component alone (Eq. 7, §3.1), on the search split."""
    alone = {Component(layer, site, index): Ablation.of_layer(layer, [index], site)
             for site in spec.oracle
             for layer in range(run.info.layers)
             for index in range(run.info.components(site))}
    entries = [Entry(BASELINE, "none", "baseline"),
               *(Entry(ablation, "oracle", "component", part.site, part.layer)
                 for part, ablation in alone.items())]
    record_ablations(run, entries, "oracle")
    if not alone:
        return {}
    expected = yield from _checked(run, entries)
    units = {
        (entry.ablation, s): run.unit(asking(
            run, s[0], s[1], spec.seed, spec.examples, entry.ablation,
            expected[entry.ablation.digest], split="search"))
        for entry in entries for s in settings}
    yield list(units.values())
    found = _accuracies(run, units.values())
    lost: dict[Site, Scores] = {site: {
        s: np.zeros((run.info.layers, run.info.components(site))) for s in settings}
        for site in spec.oracle}
    for part, ablation in alone.items():
        for s in settings:
            lost[part.site][s][part.layer, part.index] = (
                found[units[BASELINE, s].id] - found[units[ablation, s].id])
    return lost


def _checked(run: ModelRun, entries: Sequence[Entry]) -> Step[dict[str, Canary]]:
    """By digest, what the model must answer under each ablation."""
    evaluate = run.recipe.evaluate
    prompt = run.prompts(evaluate.tasks[0], "search", max(evaluate.shots), 0, range(1))
    yield (asked := canaries(run, entries, prompt, 0))
    return canary_answers(run, asked)


def _accuracies(run: ModelRun, units: Iterable[Unit]) -> dict[str, float]:
    """Unit → share of right answers; a missing answer is wrong."""
    table = run.store.read("predictions", [unit.id for unit in units])
    means = table.group_by("unit_id").aggregate([("correct", "mean")])
    return dict(zip(means["unit_id"].to_pylist(), means["correct_mean"].to_pylist(), strict=True))


def _read_scores(run: ModelRun, units: dict[Setting, Unit], site: Site, name: str
                 ) -> dict[Setting, Array]:
    """Scores of one name, ``[layers, components]`` for each setting."""
    table = run.store.read("component_scores", [unit.id for unit in units.values()])
    settings = {unit.id: setting for setting, unit in units.items()}
    found = {s: np.full((run.info.layers, run.info.components(site)), np.nan) for s in units}
    columns = table.select(["unit_id", "site", "score", "layer", "index", "value"]).to_pydict()
    for unit, of_site, score, layer, index, value in zip(*columns.values(), strict=True):
        if (of_site, score) == (site, name):
            found[settings[unit]][layer, index] = value
    return found


def _removal(run: ModelRun, spec: RemovalSpec, settings: Sequence[Setting],
             scores: dict[Site, Scores]) -> Step[None]:
    """Remove growing shares of heads, of FFNs or of both, and evaluate what is left."""
    removals = list(_removals(run.info, spec, scores))
    # By ablation: several orders may begin with the same one, and an engine switches to it once.
    wanted = {BASELINE: dict.fromkeys(settings)}
    for removal in removals:
        wanted.setdefault(removal.ablation, {}).update(dict.fromkeys(
            s for s in settings
            if removal.task in (None, s[0]) and removal.shots in (None, s[1])))
    entries = [Entry(BASELINE, "none", "baseline"), *(
        Entry(ablation, "removal", "removal", *(ablation.sites if len(ablation.sites) == 1 else ()))
        for ablation in wanted if len(ablation))]
    record_ablations(run, entries, "removal")
    run.record("removals", [_row(run, removal) for removal in removals], "removal")
    expected = yield from _checked(run, entries)
    evaluate = run.recipe.evaluate
    yield [run.unit(asking(run, task, shots, seed, evaluate.examples, ablation,
                           expected[ablation.digest]))
           for ablation, of in wanted.items() for task, shots in of
           for seed in evaluate.seeds]


def _removals(info: ModelInfo, spec: RemovalSpec, scores: dict[Site, Scores]
              ) -> Iterator[Removal]:
    """Every share of every order, heads and FFNs apart; then every pair of shares at once."""
    own: dict[Site, dict[Setting, _Order]] = {}
    for site, of_site in scores.items():
        for name in spec.orders if of_site else ():
            for found in _orders(name, of_site, info.layers, info.components(site), spec.random):
                if name == "own":
                    own.setdefault(site, {})[found.task or "", found.shots or 0] = found
                for fraction in spec.fractions:
                    share = tuple(ranking.removed(found.places, fraction))
                    heads, ffns = ((share, ()) if site == "head" else ((), share))
                    yield Removal(
                        heads, ffns, fraction * (site == "head"), fraction * (site == "ffn"),
                        name, found.task, found.shots, found.ranked_by, found.seed)
    if spec.joint and len(own) == 2:
        for setting, order in own["head"].items():
            for of_heads, of_ffns in itertools.product(spec.fractions, spec.fractions):
                yield Removal(
                    tuple(ranking.removed(order.places, of_heads)),
                    tuple(ranking.removed(own["ffn"][setting].places, of_ffns)),
                    of_heads, of_ffns, "own", order.task, order.shots, order.task)


def _orders(name: str, scores: Scores, layers: int, width: int, seeds: int) -> Iterator[_Order]:
    """The orders of one kind of component that an order's name means (papers.md §3.4)."""
    if name == "random":
        for seed in range(seeds):
            places = [(layer, index) for layer in range(layers) for index in range(width)]
            random.Random(seed_of("removal", layers, width, seed)).shuffle(places)  # noqa: S311
            yield _Order(tuple(places), seed=seed)
    elif name == "aggregate":
        for shots in dict.fromkeys(shots for _, shots in scores):
            mean = ranking.aggregate([s for (_, k), s in scores.items() if k == shots])
            yield _Order(tuple(ranking.order(mean)), shots=shots)
    else:
        for task, shots in scores:
            by = task if name == "own" else _relative(name, task, shots, scores)
            if by is not None:
                yield _Order(tuple(ranking.order(scores[by, shots])), task, shots, by)


def _relative(name: str, task: str, shots: int, scores: Scores) -> str | None:
    """The other task whose ranking is most (``closest``) or least (``farthest``) like a task's."""
    alike = {other: ranking.rank_correlation(scores[task, shots], values).value
             for (other, k), values in scores.items() if k == shots and other != task}
    known = {other: value for other, value in alike.items() if not np.isnan(value)}
    if not known:
        return None
    return (max if name == "closest" else min)(known, key=lambda other: known[other])


def _row(run: ModelRun, removal: Removal) -> Row:
    return {
        "model": run.info.id, "ablation": removal.ablation.digest, "order": removal.order,
        "task": removal.task, "shots": removal.shots, "ranked_by": removal.ranked_by,
        "seed": removal.seed, "heads": removal.heads, "ffns": removal.ffns,
        "heads_removed": len(removal.removed_heads), "ffns_removed": len(removal.removed_ffns),
    }  # fmt: skip


def perform_importance(worker: Worker, unit: Unit, job: ImportanceJob) -> list[Row]:
    """Gradient importance of every head and FFN."""
    from prunelib.heads.importance import ROWS, gradient_importance
    from prunelib.tasks.tokenization import encode

    loaded = worker.loaded(unit.model, job.dtype)
    prompts = [encode(example, loaded.tokenizer) for example in examples_of(job.prompts)[1]]
    found = gradient_importance(loaded, prompts, max(1, ROWS >> worker.halvings))
    return [row for site, variants in found.items() for variant, values in variants.items()
            for row in _score_rows(unit, site, f"gradient_{variant}", values, len(prompts),
                                   job.prompts.task.name, job.prompts.shots)]


def perform_induction(worker: Worker, unit: Unit, job: InductionJob) -> list[Row]:
    """Prefix-matching and copying scores of every head."""
    from prunelib.heads.induction import copying, prefix_matching
    from prunelib.heads.sequences import draw_sequences

    loaded = worker.loaded(unit.model, job.dtype)
    repeated, once = (draw_sequences(loaded, job.sequences, repeats, job.seed)
                      for repeats in (4, 1))
    found = {"prefix_matching": prefix_matching(loaded, repeated),
             "copying": copying(loaded, once),
             "copying_own_value": copying(loaded, once, "own_value")}
    return [row for name, values in found.items()
            for row in _score_rows(unit, "head", name, values, job.sequences)]


def _score_rows(unit: Unit, site: Site, name: str, values: Array, prompts: int,
                task: str | None = None, shots: int | None = None) -> list[Row]:
    """Rows of ``component_scores``: values are ``[layers, components]``, or ``[layers]``."""
    return [score_row(unit, Component(layer, site, index), name, value, prompts, task, shots)
            for layer, of_layer in enumerate(values.reshape(len(values), -1))
            for index, value in enumerate(of_layer)]
