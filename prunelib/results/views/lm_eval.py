"""The view on tasks of lm-evaluation-harness."""

from __future__ import annotations

from prunelib.results.views.base import view

# An example is a pair of its value and that of the untouched model, by the same engine. Random sets
# of one choice are averaged.
LM_EVAL = view(
    "lm_eval",
    "tasks of lm-evaluation-harness: every metric, and its difference to the untouched model",
    "run model engine method role matched_to task task_digest shots seed chat multiturn system "
    "metric filter aggregation examples errors baseline_score score difference difference_low "
    "difference_high",
    """
WITH answered AS (
    SELECT run, model, engine, intervention, task, task_digest, shots, seed, chat, multiturn,
           coalesce(system, '') AS system, example, requests, metric, filter, aggregation, value,
           error
    FROM lm_eval_scores JOIN _scope USING (unit_id, model)
    QUALIFY row_number() OVER (
        PARTITION BY run, model, engine, intervention, task, task_digest, shots, seed, chat,
                     multiturn, system, example, metric, filter
        ORDER BY unit_id) = 1
),
labelled AS MATERIALIZED (
    SELECT l.method, l.role, l.matched, a.*
    FROM _set_labels l JOIN answered a USING (run, model, intervention)
    WHERE l.role IN ('baseline', 'chosen', 'control')
),
missing AS (
    SELECT run, model, engine, method, role, matched, task, task_digest, shots, seed, chat,
           multiturn, system, count(DISTINCT example) AS errors
    FROM labelled WHERE error IS NOT NULL GROUP BY ALL
),
pairs AS (
    SELECT a.* EXCLUDE (error), b.value AS baseline, a.intervention = b.intervention AS same
    FROM labelled a
    LEFT JOIN labelled b
      ON b.role = 'baseline' AND b.run = a.run AND b.model = a.model AND b.engine = a.engine
     AND b.task_digest = a.task_digest AND b.task = a.task AND b.shots = a.shots
     AND b.seed = a.seed AND b.chat = a.chat AND b.multiturn = a.multiturn
     AND b.system = a.system AND b.example IS NOT DISTINCT FROM a.example
     AND b.metric = a.metric AND b.filter = a.filter
    WHERE a.error IS NULL
),
texts AS (
    SELECT run, model, engine, method, role, matched, task, task_digest, shots, seed, chat,
           multiturn, system, metric, filter, requests, count(*) AS n,
           any_value(aggregation) AS aggregation, count(DISTINCT example) AS examples,
           sum(value) AS value, sum(baseline) AS baseline, count(baseline) AS paired,
           sum((value > baseline)::INTEGER) AS gained, sum((value < baseline)::INTEGER) AS lost,
           coalesce(bool_and(value IN (0, 1) AND baseline IN (0, 1)), false) AS marks,
           coalesce(bool_and(same), false) AS same
    FROM pairs WHERE example IS NOT NULL GROUP BY ALL
),
means AS (
    SELECT run, model, engine, method, role, matched, task, task_digest, shots, seed, chat,
           multiturn, system, metric, filter, aggregation, sum(examples)::BIGINT AS examples,
           sum(value) / sum(n) AS score, sum(baseline) / sum(n) AS baseline_score,
           CASE WHEN count(*) FILTER (WHERE paired < n) > 0 THEN NULL
                WHEN bool_and(same) THEN [0.0, 0.0]
                WHEN bool_and(marks) THEN difference_interval([pair_sums(n, gained, lost)])
                ELSE mean_interval(avg((value - baseline) / n),
                                   stddev_samp((value - baseline) / n), count(*)) END AS interval
    FROM texts GROUP BY ALL
),
together AS (
    SELECT run, model, engine, method, role, matched, task, task_digest, shots, seed, chat,
           multiturn, system, metric, filter, avg(value) AS all_score, avg(baseline) AS all_baseline
    FROM pairs WHERE example IS NULL GROUP BY ALL
),
scored AS (
    SELECT * REPLACE (
               CASE aggregation WHEN 'mean' THEN score ELSE all_score END AS score,
               CASE aggregation WHEN 'mean' THEN baseline_score ELSE all_baseline
               END AS baseline_score,
               CASE aggregation WHEN 'mean' THEN interval END AS interval)
    FROM means
    LEFT JOIN together USING (run, model, engine, method, role, matched, task, task_digest, shots,
                              seed, chat, multiturn, system, metric, filter)
)
SELECT run, model, engine, method, role, nullif(matched, '') AS matched_to, task, task_digest,
       shots, seed, chat, multiturn, nullif(system, '') AS system, metric, filter, aggregation,
       coalesce(examples, 0) AS examples, coalesce(errors, 0) AS errors, baseline_score, score,
       score - baseline_score AS difference, interval[1] AS difference_low,
       interval[2] AS difference_high
FROM scored
FULL JOIN missing USING (run, model, engine, method, role, matched, task, task_digest, shots, seed,
                         chat, multiturn, system)
ORDER BY run, model, task, metric, filter, role <> 'baseline', method, matched_to
""",
    task="task, as the harness names it",
    task_digest="digest of the task's configuration and documents",
    shots="demonstrations",
    seed="by which demonstrations are drawn",
    chat="whether the model's chat template wrote the prompts",
    multiturn="whether each demonstration is a turn of its own",
    system="system prompt, null without one",
    metric="metric of the harness; null where no example has a value",
    filter="what the harness did with the responses first",
    aggregation="how the harness puts examples together: mean, or a function of all values",
    examples="documents that have a value",
    errors="documents that have none, as they do not fit into the model's context, say; they are "
    "in no other number",
    baseline_score="the metric for the untouched model, as the harness puts examples together",
    score="the metric for this method (mean over several interventions)",
    difference="score - baseline_score",
    difference_low="lower end of the 95% interval of difference over texts (formulas.md §7; "
    "Student's t where values are not 0 or 1); null where examples are not averaged",
    difference_high="upper end of the 95% interval of difference",
)

VIEWS = (LM_EVAL,)
