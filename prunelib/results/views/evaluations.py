"""The views on single interventions: evaluations, the grid of the search and what it chose."""

from __future__ import annotations

from prunelib.results.views.base import view

EVALUATIONS = view(
    "evaluations",
    "accuracy and copying error of each intervention on each task, for each purpose and number of "
    "shots",
    "run model intervention method role layer rate control_seed task split purpose shots n "
    "accuracy accuracy_low accuracy_high copying_error errors engine",
    """
SELECT run, model, intervention, method, role, layer, rate, control_seed, task, split, purpose,
       shots, count(*) AS n, avg(correct) AS accuracy,
       wilson_low(sum(correct), count(*)) AS accuracy_low,
       wilson_high(sum(correct), count(*)) AS accuracy_high,
       avg(copied) AS copying_error, sum(failed)::BIGINT AS errors, engine
FROM _answers WHERE repeat = 0 AND role IS NOT NULL
GROUP BY ALL
ORDER BY ALL
""",
    errors="answers that are missing because of an error; they count as wrong",
)

GRID = view(
    "grid",
    "one line per cell of the search: accuracy on the searched examples against the baseline",
    "run model method control_seed task layer rate count intervention n accuracy accuracy_low "
    "accuracy_high copying_error baseline_accuracy difference",
    """
WITH cells AS MATERIALIZED (
    SELECT * FROM _answers
    WHERE purpose = 'search' AND repeat = 0 AND role IN ('grid', 'baseline')
)
SELECT c.run, c.model, c.method, c.control_seed, c.task, c.layer, c.rate, c."count",
       c.intervention, count(*) AS n, avg(c.correct) AS accuracy,
       wilson_low(sum(c.correct), count(*)) AS accuracy_low,
       wilson_high(sum(c.correct), count(*)) AS accuracy_high,
       avg(c.copied) AS copying_error, avg(b.correct) AS baseline_accuracy,
       avg(c.correct - b.correct) AS difference
FROM cells c
LEFT JOIN cells b
  ON b.role = 'baseline' AND b.run = c.run AND b.model = c.model AND b.engine = c.engine
 AND b.task = c.task AND b.split = c.split AND b.shots = c.shots AND b.seed = c.seed
 AND b.example = c.example AND b.format = c.format
WHERE c.role = 'grid'
GROUP BY ALL
ORDER BY c.run, c.model, c.method, c.task, c.control_seed, c.layer, c.rate
""",
    baseline_accuracy="accuracy of the untouched model on the same prompts",
    difference="accuracy - baseline_accuracy, over the same prompts",
)

CHOSEN = view(
    "chosen",
    "the ablation that the search chose for each model, and how it did on the searched examples",
    "run model method control_seed proxy layer rate count intervention search_accuracy "
    "search_baseline_accuracy search_copying_error",
    """
WITH searched AS MATERIALIZED (
    SELECT * FROM _given WHERE purpose = 'search' AND repeat = 0
),
search AS (
    SELECT s.run, s.model, s.intervention, s.task AS proxy, avg(s.correct) AS accuracy,
           avg(b.correct) AS baseline_accuracy, avg(s.copied) AS copying_error
    FROM searched s
    JOIN (SELECT run, model, intervention AS baseline FROM _labels WHERE role = 'baseline')
        USING (run, model)
    LEFT JOIN searched b
      ON b.intervention = baseline AND b.run = s.run AND b.model = s.model AND b.engine = s.engine
     AND b.task = s.task AND b.split = s.split AND b.shots = s.shots AND b.seed = s.seed
     AND b.example = s.example AND b.format = s.format
    GROUP BY ALL
)
SELECT l.run, l.model, l.method, l.control_seed, l.proxy, l.layer, l.rate, l."count",
       l.intervention, s.accuracy AS search_accuracy,
       s.baseline_accuracy AS search_baseline_accuracy,
       s.copying_error AS search_copying_error
FROM _labels l
LEFT JOIN search s ON s.run = l.run AND s.model = l.model AND s.intervention = l.intervention
 AND s.proxy = l.proxy
WHERE l.role = 'chosen'
ORDER BY l.run, l.model, l.method, l.proxy, l.control_seed
""",
    search_accuracy="accuracy of the chosen ablation on the searched examples",
    search_baseline_accuracy="accuracy of the untouched model on the same examples",
    search_copying_error="copying error of the chosen ablation on the searched examples",
)

NOISE_FLOOR = view(
    "noise_floor",
    "the baseline evaluated twice on the report split: what differs with nothing changed",
    "run model n changed accuracy_difference",
    """
WITH baseline AS MATERIALIZED (
    SELECT * FROM _answers WHERE purpose = 'report' AND role = 'baseline'
)
SELECT a.run, a.model, count(*) AS n,
       avg((a.prediction IS DISTINCT FROM b.prediction)::INTEGER) AS changed,
       avg(b.correct - a.correct) AS accuracy_difference
FROM baseline a
JOIN baseline b USING (run, model, engine, intervention, task, shots, seed, example, format)
WHERE a.repeat = 0 AND b.repeat = 1
GROUP BY ALL
ORDER BY ALL
""",
    n="prompts that were answered twice",
    changed="share of the predictions that differ",
    accuracy_difference="accuracy of the second evaluation minus that of the first",
)

VIEWS = (EVALUATIONS, CHOSEN, GRID, NOISE_FLOOR)
