"""Contrasts: what a model holds after right and after wrong answers, in blocks of prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from prunelib.interventions.contrast import Against, Contrast, contrast_texts, places_of
from prunelib.interventions.steering import Place, place_width
from prunelib.pipeline.units.left_out import usable
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import PromptsRef
from prunelib.pipeline.units.steps import Step, needs
from prunelib.pipeline.units.unit import Job, Row, Unit, Workplace
from prunelib.recipe.steering import SteeringSpec
from prunelib.vocabulary import Stage

if TYPE_CHECKING:
    from prunelib.models import Loaded

Array = NDArray[np.float64]
#: Layers whose probes are fitted by one unit.
PROBED_LAYERS = 8


@dataclass(frozen=True)
class ContrastJob(Job):
    """Differences between right and wrong answers, everywhere, summed over a block of prompts."""

    kind: ClassVar[str] = "contrast"
    stage: ClassVar[Stage] = "attribute"
    table: ClassVar[str] = "contrasts"

    prompts: PromptsRef
    against: Against
    shuffled: bool

    def describe(self) -> str:
        return f"contrasts of {len(self.prompts.indices)} prompts from {self.prompts.indices[0]}"

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        loaded = worker.loaded(unit.model, self.dtype)
        places, layers = places_of(unit.model), tuple(range(unit.model.layers))
        found = self.values(worker, loaded, places, layers)
        signs = self.signs()
        return [self.row(unit, place, layer, signs @ (right - wrong))
                for (place, layer), (right, wrong) in found.items()]

    def values(self, worker: Workplace, loaded: Loaded, places: Sequence[Place],
               layers: Sequence[int]) -> dict[tuple[Place, int], tuple[Array, Array]]:
        """(place, layer) → values after right and after wrong answers, two of ``[pairs, width]``.

        In the order of places, then layers.
        """
        from prunelib.interventions.contrast import CONTRAST_ROWS, differences, pair_ids

        task, examples = self.prompts.draw()
        batches = list(differences(
            loaded, pair_ids(task, examples, self.against, loaded.tokenizer), places, layers,
            CONTRAST_ROWS >> worker.batch_halvings))
        return {(place, layer): (np.concatenate([b[place, layer][0] for b in batches]),
                                 np.concatenate([b[place, layer][1] for b in batches]))
                for place in places for layer in layers}

    def signs(self) -> Array:
        """1 or, where labels are shuffled, −1 for each pair."""
        from prunelib.interventions.contrast import signs

        return signs(self.prompts.draw()[1], self.shuffled)

    def row(self, unit: Unit, place: Place, layer: int, sums: Array,
            accuracies: Iterable[float] = (), losses: Iterable[float] = (),
            spreads: Iterable[float] = ()) -> Row:
        """A row of ``contrasts``."""
        return {"model": unit.model.id, "place": place, "layer": layer,
                "start": self.prompts.indices[0], "pairs": len(self.prompts.indices),
                "sums": sums, "accuracies": list(accuracies), "losses": list(losses),
                "spreads": list(spreads), "unit_id": unit.id}


@dataclass(frozen=True)
class ProbeJob(ContrastJob):
    """A probe for every head of some layers, on all prompts."""

    kind: ClassVar[str] = "probe"

    layers: tuple[int, ...] = ()

    def describe(self) -> str:
        return f"probes of layers {self.layers[0]} to {self.layers[-1]}"

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        from prunelib.interventions.iti import held_out, probe, spread

        loaded = worker.loaded(unit.model, self.dtype)
        found, signs = self.values(worker, loaded, ("head",), self.layers), self.signs()
        judging = held_out(self.prompts.queries)
        rows = []
        for (place, layer), (first, second) in found.items():
            kept = (signs > 0)[:, None]
            right, wrong = np.where(kept, first, second), np.where(kept, second, first)
            heads = [(r, w) for r, w in zip(*(np.split(side, unit.model.heads, 1)
                                              for side in (right, wrong)), strict=True)]
            judged = [probe(r, w, judging) for r, w in heads]
            rows.append(self.row(
                unit, place, layer, (right - wrong).sum(0), [a for a, _ in judged],
                [loss for _, loss in judged],
                [spread(r, w, (r - w).mean(0)) for r, w in heads]))
        return rows


def contrast_prompts(run: ModelRun, spec: SteeringSpec, task: str, seed: int) -> PromptsRef:
    """The prompts whose answers are contrasted: those that have a wrong answer to be contrasted."""
    asked = usable(run, run.prompts(task, "attribute", spec.shots, seed, range(spec.prompts),
                                    spec.demonstrations))
    known, examples = asked.draw()
    return replace(asked, indices=tuple(
        e.example for e in examples if contrast_texts(known, e, spec.against) is not None))


def contrasted(run: ModelRun, spec: SteeringSpec, prompts: PromptsRef, shuffled: bool, probes: bool
               ) -> Step[tuple[Contrast, set[str]]]:
    """What right and wrong answers differ in, and the ids of the units that found it."""
    blocks = [prompts.indices[i : i + spec.block]
              for i in range(0, len(prompts.indices), spec.block)]
    units = [run.unit(ContrastJob(run.spec.dtype, replace(prompts, indices=block), spec.against,
                                  shuffled), cost=len(block)) for block in blocks]
    layers = run.layers if probes else ()
    probing = [run.unit(ProbeJob(run.spec.dtype, prompts, spec.against, shuffled,
                                 layers[i : i + PROBED_LAYERS]),
                        cost=10 * len(prompts.indices))
               for i in range(0, len(layers), PROBED_LAYERS)]
    yield needs(units + probing)
    return _contrast(run, units, probing), {unit.id for unit in units + probing}


def _contrast(run: ModelRun, units: Sequence[Unit], probing: Sequence[Unit]) -> Contrast:
    """What units found: sums over blocks in their order, so that rounding is always the same."""
    table = run.store.read("contrasts", [unit.id for unit in (*units, *probing)])
    keys = zip(*(table[name].to_pylist() for name in ("unit_id", "place", "layer")), strict=True)
    places = {key: i for i, key in enumerate(keys)}

    def values(name: str, unit: Unit, place: Place, layer: int) -> Array:
        return np.asarray(table[name][places[unit.id, place, layer]].values)

    pairs = sum(len(cast("ContrastJob", unit.job).prompts.indices) for unit in units)
    means: dict[Place, Array] = {}
    for place in places_of(run.info):
        total = np.zeros((len(run.layers), place_width(run.info, place)))
        for unit in units:
            total += [values("sums", unit, place, layer) for layer in run.layers]
        means[place] = total / pairs

    def probed(name: str) -> Array:
        return np.array([values(name, unit, "head", layer)
                         for unit in probing for layer in cast("ProbeJob", unit.job).layers])

    return Contrast(run.layers, means, probed("accuracies"), probed("losses"), probed("spreads"),
                    run.info.heads)
