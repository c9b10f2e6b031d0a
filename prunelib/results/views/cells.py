"""Answers as the views count them that need no single one: a line per cell.

A cell is the answers of a run that have all in common but example and query. These views are those
of :mod:`prunelib.results.views.answers`, cell by cell; functions of SQL
(:mod:`prunelib.results.views.outcome_functions`) look up the outcomes.
"""

from __future__ import annotations

from prunelib.results.views.answers import LABELLED, MATCHED_TO
from prunelib.results.views.base import view

_CELL = {
    "seed": "seed of queries and demonstrations",
    "repeat": "0, or 1 for the baseline's second evaluation",
    "format": "prompt format",
    "cell": "numbers of the parts that hold the answers; those of the first unit count",
}

CELLS = view(
    "_cells",
    "predictions of each run by what they have in common",
    "run model engine intervention task split purpose shots seed repeat format cell",
    """
SELECT run, model, engine, intervention, task, split, purpose, shots, seed, repeat, format,
       list(part ORDER BY unit_id, part) AS cell
FROM _parts JOIN _scope USING (unit_id, model)
WHERE purpose <> 'left_out'
GROUP BY ALL
""",
    **_CELL,
)

ANSWER_CELLS = view(
    "_answer_cells",
    "predictions of each run by what they have in common, under the label that counts for their "
    "purpose",
    "run model engine intervention method role layer rate control_seed task split purpose shots "
    "seed repeat format cell",
    f"""
SELECT p.run, p.model, p.engine, p.intervention, l.method, l.role, l.layer, l.rate,
       l.control_seed, p.task, p.split, p.purpose, p.shots, p.seed, p.repeat, p.format, p.cell
FROM _cells p
{LABELLED}
""",  # noqa: S608
    **_CELL,
)

LINE_CELLS = view(
    "_line_cells",
    "as _answer_cells, but those of a random control once for each set of attributions it is "
    "matched to",
    "run model engine intervention method role matched_to layer rate control_seed task split "
    "purpose shots seed repeat format cell",
    f"""
SELECT a.run, a.model, a.engine, a.intervention, a.method, a.role, s.matched_to, a.layer, a.rate,
       a.control_seed, a.task, a.split, a.purpose, a.shots, a.seed, a.repeat, a.format, a.cell
FROM _answer_cells a
{MATCHED_TO}
""",  # noqa: S608
    **_CELL,
)

VIEWS = (CELLS, ANSWER_CELLS, LINE_CELLS)
