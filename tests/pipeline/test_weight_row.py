"""``search: {prune: weight_row}``: the same neurons, with their biases left where they have any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pipeline.small import recipe

import prunelib
from prunelib.errors import UserError
from prunelib.models import ModelInfo
from prunelib.pipeline.driver import prepare
from prunelib.results.query import open_results
from prunelib.results.stored_interventions import find_intervention

SEARCH = {"rates": [0.1, 0.5], "examples": 12, "shots": 2}
ROWS = SEARCH | {"prune": "weight_row"}


def ask(results: Path, sql: str) -> list[tuple[Any, ...]]:
    return open_results(results).execute(sql).fetchall()


def cells(results: Path) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Cell of the grid → site, neurons and digest of what was tried there."""
    found = ask(results, "select method, seed, layer, rate, site, content->'$.indices', "
                         "intervention from interventions where role = 'grid'")
    return {tuple(row[:4]): tuple(row[4:]) for row in found}


def test_weight_rows_are_other_ablations_of_the_same_neurons(
    families: Callable[[str], ModelInfo], tmp_path: Path
) -> None:
    info = families("gpt2")
    neurons, both = recipe(info, search=SEARCH), tmp_path / "both"
    assert prunelib.run(neurons, tmp_path / "neurons").complete
    assert prunelib.run(recipe(info, search=ROWS), tmp_path / "rows").complete
    plain, rows = cells(tmp_path / "neurons"), cells(tmp_path / "rows")
    assert plain.keys() == rows.keys() and len(rows) == 2 * 2 * 2
    assert {site for site, _, _ in plain.values()} == {"mlp_hidden"}
    assert {site for site, _, _ in rows.values()} == {"mlp_row"}
    for cell, (_, indices, digest) in rows.items():
        assert plain[cell][1] == indices and plain[cell][2] != digest
        stored = find_intervention(tmp_path / "rows", info.id, digest)
        assert stored.intervention.sites == ("mlp_row",)
    # The scores are the same both ways, the answers are not, and what is chosen is reported.
    scores = 'select unit_id, layer, "index", score, site from attributions order by all'
    assert ask(tmp_path / "neurons", scores) == ask(tmp_path / "rows", scores)
    said = ("select method, a.seed, layer, rate, example, prediction from predictions p "
            "join interventions a using (intervention) where role = 'grid' and purpose = 'search' "
            "order by all")
    plain_said, rows_said = ask(tmp_path / "neurons", said), ask(tmp_path / "rows", said)
    assert [line[:-1] for line in plain_said] == [line[:-1] for line in rows_said]
    assert plain_said != rows_said
    assert ask(tmp_path / "rows", "select distinct site from interventions join predictions "
                                  "using (intervention) where role = 'chosen' "
                                  "and purpose = 'report'"
               ) == [("mlp_row",)]
    # Neither takes the other's answers for its own where they share their results.
    first = prunelib.run(neurons, both)
    second = prunelib.run(recipe(info, search=ROWS), both)
    scored = ask(both, "select count(*) from units where stage = 'attribute'")[0][0]
    assert second.complete and first.units_done - second.units_done >= scored
    assert ask(both, "select count(distinct run) from grid") == [(2,)]
    table = ("select method, control_seed, layer, rate, intervention, accuracy, n from grid "
             "where run = ")
    assert sorted(ask(both, f"{table} '{second.run}'"), key=str) == sorted(
        ask(tmp_path / "rows", f"{table} '{second.run}'"), key=str)


@pytest.mark.parametrize("family", ["llama", "mamba"])
def test_without_biases_it_asks_for_what_is_done_anyway(
    family: str, families: Callable[[str], ModelInfo], tmp_path: Path
) -> None:
    info = families(family)
    assert prunelib.run(recipe(info, search=SEARCH), tmp_path).complete
    report = prunelib.run(recipe(info, search=ROWS), tmp_path)
    assert report.complete and report.units_done == 0 < report.units_reused
    assert ask(tmp_path, "select distinct site from interventions where role = 'chosen'") == [
        (info.site,)]


@pytest.mark.parametrize(("family", "projection", "path"), [
    ("llama with bias", None, "mlp.gate_proj"), ("llama with bias", "up", "mlp.up_proj"),
    ("gpt2", "down", "mlp.c_proj"),
])  # fmt: skip
def test_biases_that_cannot_be_left_are_refused(
    family: str, projection: str | None, path: str, families: Callable[[str], ModelInfo]
) -> None:
    attribution = {"projection": projection, "shots": 2}
    prepare(recipe(families(family), attribution=attribution))
    with pytest.raises(UserError, match=f"'{path}' of model .* has a bias.*use prune: neuron"):
        prepare(recipe(families(family), attribution=attribution, search=ROWS))
