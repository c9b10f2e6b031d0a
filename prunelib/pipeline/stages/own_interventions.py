"""A user's own interventions: evaluated as they are, beside the untouched model and random sets.

Asked for by the key ``interventions``; ``controls.random`` and ``evaluate`` are its settings too.
Nothing is scored and nothing is searched: without an intervention this is a plain evaluation.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from prunelib.components import Site
from prunelib.errors import UserError
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.interventions.base import Intervention
from prunelib.interventions.files import of_components, of_vector, read_file
from prunelib.interventions.random_directions import has_directions, random_directions
from prunelib.interventions.steering import Steering
from prunelib.models import ModelInfo
from prunelib.pipeline.stages.canary import canary_prompt, checked
from prunelib.pipeline.stages.capability import capability, capability_tokens
from prunelib.pipeline.stages.evaluation import evaluate_job, with_baseline
from prunelib.pipeline.stages.intervention_records import InterventionRecord, record_interventions
from prunelib.pipeline.stages.leaderboard import leaderboard
from prunelib.pipeline.stages.lm_eval import (
    lm_eval,
    lm_eval_count,
    lm_eval_summary,
    lm_eval_tokens,
)
from prunelib.pipeline.stages.rankings import random_components
from prunelib.pipeline.stages.study import Count, Lengths, Study, Summary
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.steps import Step, offers
from prunelib.recipe.interventions import InterventionSpec
from prunelib.recipe.recipe import Recipe
from prunelib.results.stored_interventions import find_by_digest
from prunelib.vocabulary import Stage

if TYPE_CHECKING:
    import duckdb


#: Where a recipe reports tasks of lm-evaluation-harness alone.
_CANARY_TASK = "to_upper"


class OwnInterventions(Study):
    """Interventions of the user's own → evaluation, beside random sets."""

    section: ClassVar[str] = "interventions"
    settings: ClassVar[type[InterventionSpec]] = InterventionSpec

    def check(self, recipe: Recipe) -> None:
        for spec in recipe.interventions:
            given(spec)

    def check_model(self, recipe: Recipe, info: ModelInfo) -> None:
        for spec in recipe.interventions:
            try:
                given(spec).check(info)
            except UserError as error:
                raise UserError(f"intervention '{spec.name}': {error}") from error

    def steps(self, run: ModelRun) -> Step[None]:
        records = _records(run)
        record_interventions(run, records, "interventions")
        distinct = list(dict.fromkeys(r.intervention for r in records))
        spec = run.recipe.evaluate
        expected = yield from checked(
            run, [each for each in distinct if not each.trains],
            canary_prompt(run, _canary_task(run.recipe), "report", spec.shots[0]))
        jobs = [
            evaluate_job(run, task, shots, seed, run.recipe.examples(task), each,
                         expected.get(each.digest))
            for each in distinct
            for task in spec.tasks
            for shots in spec.shots
            for seed in spec.seeds
        ]  # fmt: skip
        ablations = [each for each in distinct if isinstance(each, Ablation)]
        # Answers are compared with those of the untouched model in the same engine.
        yield offers([run.unit(each) for job in jobs
                      for each in with_baseline(job, expected.get(BASELINE.digest))]
                     + capability(run, ablations, expected, 0)
                     + lm_eval(run, distinct, expected))

    def in_order(self, recipe: Recipe) -> bool:
        return True

    def counts(self, recipe: Recipe, layers: int, heads: int) -> dict[Stage, Count]:
        alone, own = recipe.studies() == [self], _distinct(recipe)
        live = [each for each in own if not each.trains]
        shapes = {_places(each) for each in live if isinstance(each, Ablation)}
        pushes = [each for each in live if isinstance(each, Steering) and has_directions(each)]
        random = recipe.controls.random * (len(shapes) + len(pushes))
        evaluate = recipe.evaluate
        cells = len(evaluate.tasks) * len(evaluate.shots) * len(evaluate.seeds)
        # Another study may have asked the untouched model. A random set may be one of the others.
        asked = Count(alone + len(live), 1 + len(live) + random)
        again = recipe.engine != "transformers" and not all(
            isinstance(each, Ablation) for each in own)
        count = Count(cells * (alone + len(own)), cells * (1 + len(own) + random + again))
        if evaluate.capability:
            each = 1 + len(evaluate.capability.tasks)
            ablations = sum(isinstance(one, Ablation) for one in own)
            sets = recipe.controls.random * len(shapes)
            count += Count(each * (alone + ablations), each * (1 + ablations + sets))
        count += Count(*(lm_eval_count(recipe) * n for n in (
            alone + len(own), 1 + len(own) + random + again)))
        return {"canary": asked, "evaluate": count}

    def tokens(self, recipe: Recipe, info: ModelInfo, lengths: Lengths) -> dict[Stage, float]:
        evaluate = recipe.evaluate
        asked = self.counts(recipe, info.layers, info.heads)["canary"].most
        reported = sum(lengths(task, "report", shots) * recipe.examples(task)
                       for task in evaluate.tasks for shots in evaluate.shots)
        return {
            "canary": asked * lengths(_canary_task(recipe), "report", evaluate.shots[0]),
            "evaluate": asked * (reported * len(evaluate.seeds)
                                 + capability_tokens(recipe, info, lengths)
                                 + lm_eval_tokens(recipe, info)),
        }

    def summary(self, connection: duckdb.DuckDBPyConnection, run: str) -> Summary | None:
        [(searched,)] = connection.execute(
            "SELECT count(*) FROM _labels WHERE run = $1 AND role = 'grid'", [run]).fetchall()
        # A study that searches shows the same table.
        if searched:
            return None
        return leaderboard(connection, run, alone=True) or lm_eval_summary(connection, run)


STUDY = OwnInterventions()


def _canary_task(recipe: Recipe) -> str:
    """The task whose first prompt shows that an intervention is live."""
    return (*recipe.evaluate.tasks, _CANARY_TASK)[0]


def given(spec: InterventionSpec) -> Intervention:
    """The intervention that a recipe gives.

    Raises :class:`UserError` if it cannot be read, or is the untouched model.
    """
    try:
        if spec.components is not None:
            found: Intervention = of_components(spec.components)
        elif spec.vector is not None:
            found = of_vector(spec.vector)
        elif spec.file is not None:
            found = read_file(spec.file)
        else:
            found = _of_run(spec.results or "", spec.digest or "")
    except UserError as error:
        raise UserError(f"intervention '{spec.name}': {error}") from error
    if isinstance(found, Ablation | Steering) and not len(found):
        raise UserError(f"intervention '{spec.name}' changes nothing")
    return found


@functools.cache  # what has a digest stays as it is
def _of_run(results: str, digest: str) -> Intervention:
    return find_by_digest(results, digest)


def _distinct(recipe: Recipe) -> list[Intervention]:
    """The interventions, each once."""
    return list(dict.fromkeys(map(given, recipe.interventions)))


def _places(ablation: Ablation) -> tuple[tuple[int, Site, int], ...]:
    """Layer, site and number of the components that are off there."""
    return tuple((layer, site, count) for (layer, site), count in sorted(
        Counter((c.layer, c.site) for c in ablation.components).items()))


def _records(run: ModelRun) -> list[InterventionRecord]:
    """The untouched model, every intervention, and random sets or directions as each of them.

    What is trained is no choice of components: it is a control, as the fine-tuning of
    ``controls`` is.
    """
    records = [InterventionRecord(BASELINE, "none", "baseline", main=True)]
    for spec in run.recipe.interventions:
        own = given(spec)
        record = InterventionRecord(own, spec.name, "control" if own.trains else "chosen")
        if spec.vector is not None:
            record = replace(record, layer=spec.vector.layer, strength=spec.vector.strength)
        if isinstance(own, Ablation):
            record = _placed(run, record, own)
        records += [replace(record, intervention=control, method="random", role="control",
                            seed=seed)
                    for seed in range(run.recipe.controls.random)
                    if (control := _random(run, own, seed)) is not None]
        records.append(record)
    return list(dict.fromkeys(records))  # those of the same places share their random sets


def _placed(run: ModelRun, record: InterventionRecord, ablation: Ablation) -> InterventionRecord:
    """With its layer and site if it has one, and the share of what is there that is off."""
    places = _places(ablation)
    layers, sites = ({place[i] for place in places} for i in (0, 1))
    there = sum(run.info.components(site) for _, site, _ in places)
    return replace(record, layer=places[0][0] if len(layers) == 1 else None,
                   site=places[0][1] if len(sites) == 1 else None, rate=len(ablation) / there)


def _random(run: ModelRun, own: Intervention, seed: int) -> Intervention | None:
    """As many random components of the same layers and sites, or random directions, as long."""
    if isinstance(own, Steering) and has_directions(own):
        return random_directions(own, seed)
    return _random_set(run, own, seed) if isinstance(own, Ablation) else None


def _random_set(run: ModelRun, ablation: Ablation, seed: int) -> Ablation:
    components = (component for layer, site, count in _places(ablation)
                  for component in Ablation.of_layer(
                      layer, random_components(run, site, layer, seed)[:count], site).components)
    return Ablation.of(components)
