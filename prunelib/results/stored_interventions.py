"""Interventions of finished runs, and how their models were given to them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from prunelib.errors import UserError, one_line
from prunelib.interventions.ablation import BASELINE
from prunelib.interventions.base import Intervention
from prunelib.interventions.registry import intervention_of
from prunelib.recipe.load import stored_recipe
from prunelib.recipe.model import ModelSpec
from prunelib.recipe.recipe import Recipe
from prunelib.results.query import open_results

#: What stands for the revision of a model that is no commit.
_NOT_ON_THE_HUB = ("local", "shipped")
# Weights and revision of a model in each run, the latest first.
_VERSIONS = """
SELECT m.weights_digest, m.revision FROM models m
LEFT JOIN run_units u ON u.unit_id = m.unit_id AND u.model = m.model
LEFT JOIN runs r ON r.run = u.run
WHERE m.model = $1 ORDER BY r.started DESC NULLS LAST, m.revision
"""
_FOUND = """
SELECT intervention, any_value(kind), any_value(content) FROM interventions
WHERE model = $1 AND starts_with(intervention, $2) AND intervention <> $3 GROUP BY intervention
"""
# Recipes of the runs that have an intervention of a model, the latest first.
_RECIPES = """
SELECT resolved FROM runs WHERE run IN (
    SELECT u.run FROM interventions i JOIN run_units u ON u.unit_id = i.unit_id
    AND u.model = i.model WHERE i.model = $1 AND i.intervention = $2)
ORDER BY started DESC, run
"""


@dataclass(frozen=True)
class StoredIntervention:
    """An intervention of finished runs, and how its model was given to them.

    Attributes:
        model: the model's id in recipes.
        weights_digest: of the model, which may have changed since.
        revision: its commit on the hub, ``None`` for models from elsewhere.
        recipes: of the runs that have the intervention, with every default filled in and every data
            set at its commit, the latest first; without those that this version cannot read.
    """

    model: str
    intervention: Intervention
    weights_digest: str
    revision: str | None
    recipes: tuple[Recipe, ...]

    @property
    def spec(self) -> ModelSpec:
        """What the latest recipe says of the model."""
        given = (spec for recipe in self.recipes for spec in recipe.models if spec.id == self.model)
        return next(given, ModelSpec(id=self.model))


def find_intervention(path: Path | str, model: str, digest: str) -> StoredIntervention:
    """What was done to a model, by the beginning of its digest; the untouched model is not meant.

    Raises:
        UserError: there is none, or more than one; the chosen ones are named. Or what is stored
            does not have the digest under which it is stored.
    """
    with open_results(path) as con:
        found = con.execute(_FOUND, [model, digest, BASELINE.digest]).fetchall()
        versions = con.execute(_VERSIONS, [model]).fetchall()
        chosen = con.execute("SELECT DISTINCT intervention FROM interventions WHERE model = $1 "
                             "AND role = 'chosen' AND intervention <> $2",
                             [model, BASELINE.digest]).fetchall()
        recipes = [row[0] for intervention, *_ in found[:1]
                   for row in con.execute(_RECIPES, [model, intervention]).fetchall()]
    if not versions:
        raise UserError(f"{path} has no results of model '{model}'")
    if len({weights for weights, _ in versions}) > 1:
        raise UserError(f"{path} has results of several versions of model '{model}'")
    if digest and not found and BASELINE.digest.startswith(digest):
        raise UserError(f"'{digest}' is the untouched model '{model}': nothing is switched off")
    if len(found) != 1:
        what = "several interventions begin" if found else "no intervention begins"
        known = ", ".join(sorted(row[0][:12] for row in chosen)) or "none"
        raise UserError(f"of model '{model}' {what} with '{digest}'; chosen: {known}")
    weights, revision = versions[0]
    return StoredIntervention(
        model=model,
        intervention=_intervention(path, *found[0]),
        weights_digest=weights,
        revision=None if revision in _NOT_ON_THE_HUB else revision,
        recipes=tuple(filter(None, map(stored_recipe, recipes))),
    )


def find_by_digest(path: Path | str, digest: str) -> Intervention:
    """An intervention by the beginning of its digest, whatever model it was done to.

    Raises :class:`UserError` as :func:`find_intervention`.
    """
    with open_results(path) as con:
        found = con.execute(
            "SELECT intervention, any_value(kind), any_value(content) FROM interventions "
            "WHERE starts_with(intervention, $1) GROUP BY intervention", [digest]).fetchall()
    if len(found) != 1:
        what = "several interventions begin" if found else "no intervention begins"
        raise UserError(f"in {path} {what} with '{digest}'")
    return _intervention(path, *found[0])


def _intervention(path: Path | str, digest: str, kind: str, content: str) -> Intervention:
    """What a row of ``interventions`` holds, which must have the digest that the row says."""
    try:
        found = intervention_of(kind, json.loads(content))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: intervention {digest} cannot be read: {one_line(error)}"
                        ) from error
    if found.digest != digest:
        raise UserError(f"{path}: intervention {digest} is not what its digest says, which is of "
                        "damaged results or another version of prunelib")
    return found
