"""The views on how a run went: quality of the scores, costs, failures."""

from __future__ import annotations

from prunelib.results.views.base import view

COMPLETENESS = view(
    "completeness",
    "how far the scores of each layer are from the change that they explain",
    "run model method objective proxy seed layer prompts nodes error_estimate gap_median gap_p95 "
    "gap_max",
    """
WITH gaps AS (
    SELECT run, model, method, objective, proxy, seed, layer, example, nodes, abs(gap) AS gap
    FROM completeness_gaps JOIN _scope USING (unit_id)
    QUALIFY row_number() OVER (
        PARTITION BY run, model, method, objective, proxy, seed, layer, example
        ORDER BY nodes DESC, unit_id) = 1
),
layers AS (
    SELECT run, model, method, objective, proxy, seed, layer,
           max(error_estimate) AS error_estimate
    FROM attributions JOIN _scope USING (unit_id)
    GROUP BY ALL
)
SELECT g.run, g.model, g.method, g.objective, g.proxy, g.seed, g.layer, count(*) AS prompts,
       max(g.nodes) AS nodes, any_value(l.error_estimate) AS error_estimate,
       median(gap) AS gap_median, quantile_cont(gap, 0.95) AS gap_p95, max(gap) AS gap_max
FROM gaps g
LEFT JOIN layers l
  ON l.run = g.run AND l.model = g.model AND l.method = g.method AND l.layer = g.layer
 AND l.proxy = g.proxy AND l.seed = g.seed
 AND l.objective IS NOT DISTINCT FROM g.objective
GROUP BY ALL
ORDER BY g.run, g.model, g.method, g.objective, g.proxy, g.seed, g.layer
""",
    seed="seed of the prompts",
    prompts="prompts whose gap was measured",
    gap_median="median over the prompts of |sum of scores - change of the objective|",
    gap_p95="95th percentile of the same",
    gap_max="largest of the same",
)

RECALL = view(
    "recall",
    "how many planted components are among the first of their layer to be switched off, for "
    "attributions of the site where they sit",
    "run model method objective proxy seed layer planted found recall",
    """
WITH known AS (
    SELECT run, model, any_value(site) AS site, layer, "index"
    FROM planted JOIN _scope USING (unit_id)
    GROUP BY run, model, layer, "index"
),
size AS (SELECT run, model, layer, count(*) AS planted FROM known GROUP BY ALL),
scored AS (
    SELECT DISTINCT run, model, method, objective, proxy, seed, site, layer, "index", "rank"
    FROM attributions JOIN _scope USING (unit_id)
)
SELECT s.run, s.model, s.method, s.objective, s.proxy, s.seed, s.layer,
       any_value(z.planted) AS planted,
       count(*) FILTER (s."rank" <= z.planted) AS found,
       count(*) FILTER (s."rank" <= z.planted) / any_value(z.planted) AS recall
FROM scored s JOIN known k USING (run, model, layer, "index") JOIN size z USING (run, model, layer)
WHERE s.site = coalesce(k.site, s.site)
GROUP BY ALL
ORDER BY ALL
""",
    seed="seed of the prompts",
    planted="components that were planted in the layer (K)",
    found="planted components among the first K of the layer to be switched off",
    recall="found / planted (recall at K)",
)

TASK_VECTOR_ACCURACY = view(
    "task_vector_accuracy",
    "accuracy of bare queries, of prompts with demonstrations, and of bare queries with task "
    "vectors, on the report split",
    "run model method proxy task shots n layer zero_shot icl task_vector",
    """
SELECT l.run, l.model, l.method, l.proxy, v.task, v.shots, count(DISTINCT v.example) AS n,
       max(v.layer) AS layer,
       avg(v.correct::INTEGER) FILTER (v.way = 'zero_shot') AS zero_shot,
       avg(v.correct::INTEGER) FILTER (v.way = 'icl') AS icl,
       avg(v.correct::INTEGER) FILTER (v.way = 'task_vector') AS task_vector
FROM task_vectors v JOIN _scope s USING (unit_id)
JOIN _labels l ON l.run = s.run AND l.model = v.model AND l.ablation = v.ablation
 AND l.role IN ('baseline', 'chosen') AND coalesce(l.only_task, v.task) = v.task
WHERE v.split = 'report'
GROUP BY ALL
ORDER BY ALL
""",
    shots="demonstrations behind a vector, and of the in-context learning",
    n="queries",
    layer="layer whose output is the vector, chosen on the search split",
    zero_shot="share of right answers to bare queries",
    icl="share of right answers with demonstrations",
    task_vector="share of right answers to bare queries with task vectors",
)

COSTS = view(
    "costs",
    "what each stage of a run cost, failed attempts included; reused units cost nothing",
    "run stage model units seconds seconds_per_unit starts seconds_per_start switches "
    "seconds_per_switch peak_memory_mb",
    """
SELECT run, stage, model, count(DISTINCT unit_id) AS units, sum(seconds) AS seconds,
       (sum(seconds) - coalesce(sum(start_seconds), 0) - coalesce(sum(switch_seconds), 0))
           / count(DISTINCT unit_id) AS seconds_per_unit,
       count(start_seconds) AS starts, avg(start_seconds) AS seconds_per_start,
       count(switch_seconds) AS switches, avg(switch_seconds) AS seconds_per_switch,
       max(peak_memory_mb) AS peak_memory_mb
FROM units
GROUP BY ALL
ORDER BY ALL
""",
    units="units of work",
    seconds="time of all attempts together",
    seconds_per_unit="time per unit, without starts and switches of engines",
    starts="times that an engine was started (files of before this was measured count none)",
    seconds_per_start="mean time of a start, with the first ablation and its check; null if none",
    switches="times that a live engine was switched to another ablation (likewise)",
    seconds_per_switch="mean time of a switch, with its check; null if none",
    peak_memory_mb="largest resident memory of a worker in MB",
)

FAILED_UNITS = view(
    "failed_units",
    "units whose latest attempt failed and that no run has done since",
    "run unit_id stage model detail attempts worker error_kind error_text finished_at",
    """
SELECT f.run, f.unit_id, f.stage, f.model, f.detail, f.attempts, f.worker, f.error_kind,
       f.error_text, f.finished_at
FROM (
    SELECT *, count(*) OVER (PARTITION BY run, unit_id) AS attempts
    FROM units
    QUALIFY row_number() OVER (
        PARTITION BY run, unit_id ORDER BY finished_at DESC, attempt DESC) = 1
) f
WHERE f.status = 'failed' AND NOT EXISTS (
    SELECT 1 FROM units d
    WHERE d.unit_id = f.unit_id AND d.status = 'done' AND d.finished_at >= f.finished_at)
ORDER BY f.run, f.stage, f.model, f.unit_id
""",
    detail="what the unit does",
    attempts="how often it was tried",
    worker="who tried last",
    error_kind="class of the last error",
    error_text="message of the last error",
    finished_at="when the last attempt ended (UTC)",
)
