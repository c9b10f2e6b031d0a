"""The whole pipeline on one tiny model of each kind of neuron and of layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from small import recipe

import prunelib
from prunelib.models import ModelInfo


@pytest.mark.parametrize("name", ["gpt2", "opt", "bloom", "gpt_neox", "mamba", "mamba2"])
def test_a_family_runs_from_scores_to_evaluation(
    name: str, families: Callable[[str], ModelInfo], tmp_path: Path
) -> None:
    info = families(name)
    prunelib.run(recipe(info), tmp_path)
    results = prunelib.open_results(tmp_path)
    assert results.sql("select * from failed_units").fetchall() == []
    sites = results.sql("select distinct site from attributions union select distinct site "
                        "from interventions where site is not null").fetchall()
    assert sites == [(info.site,)]
    methods = results.sql("select distinct method from leaderboard").fetchall()
    assert len(methods) >= 3
