"""The view on which components ablations switch off."""

from __future__ import annotations

import json

import pytest
from component_scores import add_scores
from results_folder import Folder, rows

from prunelib.components import Component
from prunelib.errors import UserError

JOINT = [Component(0, "head", 1), Component(2, "ffn", 0), Component(2, "head", 0)]


def test_every_component_of_every_ablation_once(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", "integrated_gradients", "grid")
    folder.intervention("ig", "integrated_gradients", "chosen", unit_id="choose-again")
    folder.intervention("joint", "removal", "removal", JOINT, site=None, layer=None, rate=None)
    tuned = {"samples": [["1+1=", "2"]], "settings": {}}
    folder.intervention("tuned", "fine_tuning", "control", site=None, layer=None, rate=None,
                        count=0, kind="fine_tuning", content=json.dumps(tuned))
    folder.write()
    found = [tuple(row.values()) for row in rows(
        folder, 'SELECT intervention, site, layer, "index" FROM components ORDER BY ALL')]
    assert found == [("ig", "mlp_hidden", 1, index) for index in (0, 4, 5)] + [
        ("joint", "ffn", 2, 0), ("joint", "head", 0, 1), ("joint", "head", 2, 0)]
    counts = rows(folder, 'SELECT intervention, max("count") AS c FROM interventions GROUP BY ALL')
    assert {row["intervention"]: row["c"] for row in counts} == {
        "base": 0, "ig": 3, "joint": 3, "tuned": 0}


def test_views_unnest_only_the_ablations_of_the_roles_that_they_ask_for(folder: Folder) -> None:
    """The grid of a large model has many large ablations: here it has one that cannot be read."""
    folder.intervention("ig", "integrated_gradients", "grid", content="no JSON")
    folder.intervention("base", "none", "baseline")
    folder.intervention("h1", "oracle", "component", JOINT[:1], site="head", layer=0, count=1)
    for intervention in ("base", "h1"):
        folder.answers(intervention, "10", purpose="importance")
    folder.intervention("off", "removal", "removal", JOINT[:1], site="head", layer=None, count=1)
    folder.add("removals", {
        "model": "m", "intervention": "off", "order": "own", "task": "t", "shots": 2,
        "ranked_by": "t", "seed": None, "heads": 0.5, "ffns": 0.0, "heads_removed": 1,
        "ffns_removed": 0, "unit_id": "removal"})
    add_scores(folder, [[1.0, 3.0]], "copying", task=None, shots=None)
    folder.intervention("first", "in_context_heads", "in_context_first", JOINT[:1], site="head")
    add_scores(folder, [[1.0, 3.0]], "causal_first_label")
    folder.write()
    with pytest.raises(UserError, match="JSON"):
        rows(folder, "FROM components")
    assert [r["index"] for r in rows(folder, "FROM component_importance WHERE score = 'oracle'")
            ] == [1]
    assert [r["retained"] for r in rows(folder, "FROM retention ORDER BY heads")] == [100.0, 25.0]
    assert [r["causal"] for r in rows(folder, "FROM label_readings")] == [3.0]
