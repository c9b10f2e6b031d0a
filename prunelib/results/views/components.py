"""The view on which components an ablation switches off, from the content of interventions."""

from __future__ import annotations

from prunelib.results.views.base import view

# A condition on the keys is applied before anything is unnested: a grid has many large ablations.
_UNNESTED = """
SELECT {keys}, unnest(off.sites) AS site, unnest(off.layers) AS layer,
       unnest(off.indices) AS "index"
FROM (
    SELECT {keys}, from_json(any_value(content), '{{"layers": ["INTEGER"], "sites": ["VARCHAR"],
                             "indices": ["INTEGER"]}}') AS off
    FROM interventions JOIN _scope USING (unit_id, model)
    WHERE kind = 'ablation' GROUP BY {keys}
)
"""
_MEANINGS = {
    "site": "where the component sits, such as mlp_hidden",
    "layer": "layer, from 0",
    "index": "component within layer and site, from 0",
}

#: With the role as a key, so that views choose before they unnest.
OF_ROLES = view(
    "_components",
    "which components each ablation of a run switches off, once for each role that it has",
    "run model intervention role site layer index",
    _UNNESTED.format(keys="run, model, intervention, role"),
    **_MEANINGS,
)

COMPONENTS = view(
    "components",
    "one line per ablation of a run and component that it switches off",
    "run model intervention site layer index",
    _UNNESTED.format(keys="run, model, intervention"),
    **_MEANINGS,
)

VIEWS = (OF_ROLES, COMPONENTS)
