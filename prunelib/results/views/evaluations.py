"""The views on single interventions: answers, evaluations, and the baseline evaluated twice."""

from __future__ import annotations

from prunelib.results.views.answers import ANSWER
from prunelib.results.views.base import view

PLAIN = view(
    "answers",
    "one line per answer and method, without prompts: predictions with their run and where the "
    "intervention comes from; one that two methods chose has its answers twice",
    "run model method role task split purpose shots seed example repeat query gold prediction "
    "correct copied copied_position failed layer rate count control_seed intervention engine "
    "format",
    """
SELECT run, model, method, role, task, split, purpose, shots, seed, example, repeat, query, gold,
       prediction, correct, copied, copied_position, failed, layer, rate, "count", control_seed,
       intervention, engine, format
FROM _answers
""",
    **{name: meaning for name, meaning in ANSWER.items() if name not in ("answers", "margin")},
    method="ranking that chose the components, way to steer, or name of an own intervention; none "
    "for the baseline; null of what was asked for no intervention of the recipe",
)

EVALUATIONS = view(
    "evaluations",
    "accuracy and copying error of each intervention on each task, for each purpose and number of "
    "shots",
    "run model intervention method role layer rate control_seed task split purpose shots prompts "
    "queries accuracy accuracy_low accuracy_high copying_error copying_error_low "
    "copying_error_high errors engine",
    """
WITH counted AS (
    SELECT run, model, intervention, method, role, layer, rate, control_seed, task, split, purpose,
           shots, engine, tally(list(cell)) AS sums
    FROM _answer_cells WHERE repeat = 0 AND role IS NOT NULL
    GROUP BY ALL
),
measured AS (
    SELECT *, unnest(sums), share_interval([sums.rights]) AS interval,
           share_interval([sums.copies]) AS copying_interval
    FROM counted
)
SELECT run, model, intervention, method, role, layer, rate, control_seed, task, split, purpose,
       shots, n AS prompts, queries, correct / n AS accuracy, interval[1] AS accuracy_low,
       interval[2] AS accuracy_high, copied / n AS copying_error,
       copying_interval[1] AS copying_error_low, copying_interval[2] AS copying_error_high,
       failed AS errors, engine
FROM measured
ORDER BY run, model, intervention, method, role, layer, rate, control_seed, task, split, purpose,
         shots, engine
""",
    copying_error_low="lower end of the 95% interval of copying_error (over queries)",
    copying_error_high="upper end of the 95% interval of copying_error (over queries)",
    errors="answers that are missing because of an error; they count as wrong",
)

NOISE_FLOOR = view(
    "noise_floor",
    "the baseline evaluated twice on the report split: what differs with nothing changed",
    "run model prompts queries changed accuracy_difference",
    """
WITH baseline AS MATERIALIZED (
    SELECT * FROM _answers WHERE purpose = 'report' AND role = 'baseline'
)
SELECT a.run, a.model, count(*) AS prompts, count(DISTINCT (task, a.query)) AS queries,
       avg((a.prediction IS DISTINCT FROM b.prediction)::INTEGER) AS changed,
       avg(b.correct - a.correct) AS accuracy_difference
FROM baseline a
JOIN baseline b USING (run, model, engine, intervention, task, shots, seed, example, format)
WHERE a.repeat = 0 AND b.repeat = 1
GROUP BY ALL
ORDER BY ALL
""",
    prompts="prompts that were answered twice",
    changed="share of the predictions that differ",
    accuracy_difference="accuracy of the second evaluation minus that of the first",
)

VIEWS = (PLAIN, EVALUATIONS, NOISE_FLOOR)
