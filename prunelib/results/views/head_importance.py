"""The views on heads and FFNs: how much each matters, and what is left when some are removed.

Definitions are those of :mod:`prunelib.heads.ranking` and :mod:`prunelib.heads.induction`.
"""

from __future__ import annotations

from prunelib.results.views.base import view

_ABOUT_SCORES = {
    "site": "head or ffn",
    "layer": "layer, from 0",
    "index": "head within the layer, from 0; 0 for an FFN",
    "score": "name of the score; oracle is accuracy lost without the component (papers.md §3.1)",
    "task": "task, null for scores on random sequences",
    "shots": "demonstrations per prompt, null likewise",
}

IMPORTANCE = view(
    "component_importance",
    "every score of every head and FFN, with its rank in the whole model; score oracle is what "
    "the search split loses without the component",
    "run model site layer index score task shots value rank prompts",
    """
WITH answered AS MATERIALIZED (
    SELECT run, model, engine, ablation, task, shots, seed, example, format, correct
    FROM _given WHERE split = 'search' AND repeat = 0
),
alone AS (
    SELECT DISTINCT run, model, ablation, site, component_layers[1] AS layer,
           component_indices[1] AS "index"
    FROM ablations JOIN _scope USING (unit_id) WHERE role = 'component'
),
untouched AS (
    SELECT answered.* FROM answered
    JOIN (SELECT DISTINCT run, model, ablation FROM _labels WHERE role = 'baseline')
        USING (run, model, ablation)
),
scored AS (
    SELECT DISTINCT run, model, site, layer, "index", score, task, shots, "value", prompts
    FROM component_scores JOIN _scope USING (unit_id)
    UNION ALL
    SELECT c.run, c.model, c.site, c.layer, c."index", 'oracle', a.task, a.shots,
           avg(b.correct - a.correct), count(*)
    FROM alone c JOIN answered a USING (run, model, ablation)
    JOIN untouched b USING (run, model, engine, task, shots, seed, example, format)
    GROUP BY ALL
)
SELECT run, model, site, layer, "index", score, task, shots, "value",
       row_number() OVER (PARTITION BY run, model, site, score, task, shots
                          ORDER BY "value" DESC, layer DESC, "index" DESC) AS "rank",
       prompts
FROM scored
ORDER BY run, model, site, score, task, shots, "rank"
""",
    **_ABOUT_SCORES,
    value="mean over the prompts or sequences",
    rank="rank within model, site, score, task and shots: 1 = most important; of equal scores "
    "those of later layers (and later heads) come first, so that they are removed last",
    prompts="prompts or sequences behind it",
)

# The second join is by place in the order, which the released code compares (papers.md §3.2).
IMPORTANCE_AGREEMENT = view(
    "importance_agreement",
    "two rankings of a model's heads, or of its FFNs, that differ in nothing but score, task or "
    "shots: how alike they are. A score on random sequences has no task and shots, and so is "
    "compared with every task and number of shots of other scores",
    "run model site score task shots other_score other_task other_shots components spearman "
    "spearman_low spearman_high spearman_as_released overlap_top",
    """
WITH ranked AS MATERIALIZED (
    SELECT run, model, site, "value", "rank",
           dense_rank() OVER (ORDER BY run, model, site, score, task, shots) AS id,
           row_number() OVER (PARTITION BY run, model, site, score, task, shots
                              ORDER BY layer, "index") AS component,
           -- Spearman's ranks: equal scores share the mean of their ranks
           rank() OVER (PARTITION BY run, model, site, score, task, shots ORDER BY "value")
           + count(*) OVER (PARTITION BY run, model, site, score, task, shots, "value") / 2
               AS place,
           score, task, shots
    FROM component_importance
),
sources AS (
    SELECT id, run, model, site, score, task, shots, count(*) AS components,
           min("value") < max("value") AS differ
    FROM ranked GROUP BY ALL
),
pairs AS (
    SELECT a.run, a.model, a.site, a.id AS a_id, b.id AS b_id, a.components,
           a.differ AND b.differ AS differ, a.score, a.task, a.shots, b.score AS other_score,
           b.task AS other_task, b.shots AS other_shots
    FROM sources a JOIN sources b ON a.run = b.run AND a.model = b.model AND a.site = b.site
     AND a.components = b.components AND a.id < b.id
    WHERE (a.score <> b.score)::INTEGER + coalesce(a.task <> b.task, false)::INTEGER
          + coalesce(a.shots <> b.shots, false)::INTEGER = 1
),
alike AS (
    SELECT p.a_id, p.b_id,
           greatest(-1, least(1, corr(a.place, b.place))) AS spearman,
           count(*) FILTER (a."rank" <= 3 * p.components // 10
                            AND b."rank" <= 3 * p.components // 10) AS shared
    FROM pairs p JOIN ranked a ON a.id = a_id
    JOIN ranked b ON b.id = b_id AND b.component = a.component
    GROUP BY ALL
),
released AS (
    SELECT p.a_id, p.b_id,
           greatest(-1, least(1, corr(a.component, b.component))) AS spearman_as_released
    FROM pairs p JOIN ranked a ON a.id = a_id JOIN ranked b ON b.id = b_id AND b."rank" = a."rank"
    GROUP BY ALL
),
found AS (
    SELECT p.*, CASE WHEN differ THEN spearman END AS spearman, shared, spearman_as_released
    FROM pairs p JOIN alike USING (a_id, b_id) JOIN released USING (a_id, b_id)
),
ends AS (
    SELECT *, CASE WHEN components > 3 AND abs(spearman) < 1 THEN 1.959963984540054
                   * sqrt((1 + spearman * spearman / 2) / (components - 3)) END AS half
    FROM found
)
SELECT run, model, site, score, task, shots, other_score, other_task, other_shots, components,
       spearman,
       CASE WHEN half IS NOT NULL THEN tanh(atanh(spearman) - half)
            WHEN components > 3 THEN spearman END AS spearman_low,
       CASE WHEN half IS NOT NULL THEN tanh(atanh(spearman) + half)
            WHEN components > 3 THEN spearman END AS spearman_high,
       CASE WHEN components > 1 THEN spearman_as_released END AS spearman_as_released,
       shared / nullif(3 * components // 10, 0) AS overlap_top
FROM ends
ORDER BY ALL
""",
    **_ABOUT_SCORES,
    other_score="score of the other ranking",
    other_task="task of the other ranking",
    other_shots="demonstrations per prompt of the other ranking",
    components="heads, or FFNs, of the model",
    spearman="rank correlation over all components, equal scores with the mean of their ranks; "
    "null if one of the rankings has no order",
    spearman_low="lower end of its 95% interval (Fisher's, with the variance of Bonett and Wright)",
    spearman_high="upper end of the same",
    spearman_as_released="correlation of the two lists of component numbers in order of "
    "importance, as the paper's code computes it: another number (papers.md §3.2)",
    overlap_top="share of the most important 30% (rounded down) that the rankings have in common; "
    "unrelated ones have 0.3 on average; null if 30% is less than one component",
)

_ABOUT_REMOVALS = {
    "order": "own: the least important first, by the task itself; aggregate: by the mean over "
    "tasks; closest, farthest: by the task whose ranking is most, or least, like the own one; "
    "random",
    "ranked_by": "task whose importance gave the order, null for several or none",
    "control_seed": "seed of a random order, else null",
    "heads": "share of the model's heads that was asked for",
    "ffns": "share of the model's FFNs that was asked for",
    "heads_removed": "heads that are off",
    "ffns_removed": "FFNs that are off",
    "baseline_accuracy": "accuracy of the untouched model on the same prompts",
    "difference": "accuracy - baseline_accuracy",
}

#: The uses of removals (``{where}``: of which ones), with one more each: nothing removed.
_USES = """
uses AS (
    SELECT DISTINCT run, model, ablation, "order", task AS only_task, shots AS only_shots,
           ranked_by, seed AS control_seed, heads, ffns, heads_removed, ffns_removed
    FROM removals JOIN _scope USING (unit_id) WHERE {where}
),
baseline AS (SELECT DISTINCT run, model, ablation FROM _labels WHERE role = 'baseline'),
shares AS (
    SELECT * FROM uses
    UNION ALL
    SELECT DISTINCT run, model, b.ablation, "order", only_task, only_shots, ranked_by,
           control_seed, 0.0, 0.0, 0, 0
    FROM uses JOIN baseline b USING (run, model)
)"""

#: Answers after each removal beside those of the untouched model to the same prompts.
REMOVAL_PAIRS = view(
    "_removal_pairs",
    "answers on the report split without removed heads and FFNs, and with them",
    "run model order ranked_by control_seed task shots heads ffns heads_removed ffns_removed seed "
    "example correct untouched",
    f"""
WITH {_USES.strip().format(where="true")},
given AS MATERIALIZED (
    SELECT run, model, engine, ablation, task, shots, seed, example, format, correct
    FROM _given WHERE split = 'report' AND repeat = 0
)
SELECT s.run, s.model, s."order", s.ranked_by, s.control_seed, a.task, a.shots, s.heads, s.ffns,
       s.heads_removed, s.ffns_removed, a.seed, a.example, a.correct, b.correct AS untouched
FROM shares s JOIN given a ON a.run = s.run AND a.model = s.model AND a.ablation = s.ablation
 AND coalesce(s.only_task, a.task) = a.task AND coalesce(s.only_shots, a.shots) = a.shots
JOIN (SELECT given.* FROM given JOIN baseline USING (run, model, ablation)) b
  ON b.run = a.run AND b.model = a.model AND b.engine = a.engine AND b.task = a.task
 AND b.shots = a.shots AND b.seed = a.seed AND b.example = a.example AND b.format = a.format
""",  # noqa: S608
    **_ABOUT_REMOVALS,
    seed="seed of queries and demonstrations",
    example="example within task, split, shots and seed",
    correct="1 if right",
    untouched="1 if the untouched model is right",
)

REMOVAL_CURVES = view(
    "removal_curves",
    "accuracy on the report split while heads, FFNs or both are removed in each order, from none "
    "of them on",
    "run model order ranked_by control_seed task shots heads ffns heads_removed ffns_removed n "
    "accuracy accuracy_low accuracy_high baseline_accuracy difference difference_low "
    "difference_high",
    """
WITH curves AS (
    SELECT run, model, "order", ranked_by, control_seed, task, shots, heads, ffns, heads_removed,
           ffns_removed, count(*) AS n, sum(correct) AS successes,
           avg(untouched) AS baseline_accuracy,
           histogram((correct - untouched)::DOUBLE) AS gaps
    FROM _removal_pairs GROUP BY ALL
),
tested AS (SELECT *, histogram_bootstrap(gaps) AS interval FROM curves)
SELECT run, model, "order", ranked_by, control_seed, task, shots, heads, ffns, heads_removed,
       ffns_removed, n, successes / n AS accuracy, wilson_low(successes, n) AS accuracy_low,
       wilson_high(successes, n) AS accuracy_high, baseline_accuracy,
       successes / n - baseline_accuracy AS difference, interval[1] AS difference_low,
       interval[2] AS difference_high
FROM tested
ORDER BY run, model, task, shots, "order", ranked_by, control_seed, heads, ffns
""",
    **_ABOUT_REMOVALS,
    difference_low="lower end of the 95% interval of difference (bootstrap over prompts)",
    difference_high="upper end of the 95% interval of difference (bootstrap over prompts)",
)

REMOVAL_MEANS = view(
    "removal_means",
    "the same as means over the tasks and, of random orders, over their seeds; intervals are over "
    "queries, tasks and orders taken as given",
    "run model order shots heads ffns tasks n accuracy accuracy_low accuracy_high "
    "baseline_accuracy difference difference_low difference_high",
    """
WITH queries AS (
    SELECT run, model, "order", shots, heads, ffns, task, seed, example,
           round(avg(correct), 12) AS correct, avg(untouched) AS untouched,
           round(avg(correct - untouched), 12) AS gap
    FROM _removal_pairs GROUP BY ALL
),
of_tasks AS (
    SELECT run, model, "order", shots, heads, ffns, task, count(*) AS n, avg(correct) AS accuracy,
           avg(untouched) AS baseline_accuracy, histogram(correct::DOUBLE) AS marks,
           histogram(gap::DOUBLE) AS gaps
    FROM queries GROUP BY ALL
),
stacked AS (
    SELECT run, model, "order", shots, heads, ffns, count(*) AS tasks, sum(n)::BIGINT AS n,
           avg(accuracy) AS accuracy, avg(baseline_accuracy) AS baseline_accuracy,
           stack(list(marks ORDER BY task), list(task ORDER BY task)) AS m,
           stack(list(gaps ORDER BY task), list(task ORDER BY task)) AS g
    FROM of_tasks GROUP BY ALL
),
tested AS (
    SELECT *, bootstrap(m.v, m.c, m.s) AS marks, bootstrap(g.v, g.c, g.s) AS gaps FROM stacked
)
SELECT run, model, "order", shots, heads, ffns, tasks, n, accuracy, marks[1] AS accuracy_low,
       marks[2] AS accuracy_high, baseline_accuracy, accuracy - baseline_accuracy AS difference,
       gaps[1] AS difference_low, gaps[2] AS difference_high
FROM tested
ORDER BY run, model, shots, "order", heads, ffns
""",
    **{name: _ABOUT_REMOVALS[name] for name in (
        "order", "heads", "ffns", "baseline_accuracy", "difference")},
    tasks="tasks",
    n="queries",
    accuracy="share of right answers, mean over tasks",
    accuracy_low="lower end of its 95% interval (bootstrap over queries)",
    accuracy_high="upper end of its 95% interval (bootstrap over queries)",
    difference_low="lower end of its 95% interval (bootstrap over queries)",
    difference_high="upper end of its 95% interval (bootstrap over queries)",
)

RETENTION = view(
    "retention",
    "how much of the heads' prefix matching and copying is left while heads are removed in each "
    "order, from none of them on (papers.md §3.3)",
    "run model score order ranked_by control_seed task shots heads heads_removed retained",
    f"""
WITH {_USES.strip().format(where="ffns = 0")},
capacity AS (
    SELECT DISTINCT run, model, layer, "index", score, "value"
    FROM component_scores JOIN _scope USING (unit_id)
    WHERE site = 'head' AND task IS NULL
),
totals AS (SELECT run, model, score, sum("value") AS total FROM capacity GROUP BY ALL),
gone AS (
    SELECT run, model, ablation, unnest(component_layers) AS layer,
           unnest(component_indices) AS "index"
    FROM (SELECT DISTINCT run, model, ablation, component_layers, component_indices
          FROM ablations JOIN _scope USING (unit_id) WHERE site = 'head')
),
lost AS (
    SELECT run, model, ablation, score, sum("value") AS lost
    FROM gone JOIN capacity USING (run, model, layer, "index") GROUP BY ALL
)
SELECT run, model, t.score, "order", ranked_by, control_seed, only_task AS task,
       only_shots AS shots, heads, heads_removed,
       CASE WHEN total > 0 THEN 100 * (total - coalesce(lost, 0)) / total END AS retained
FROM shares s JOIN totals t USING (run, model) LEFT JOIN lost l USING (run, model, ablation, score)
ORDER BY run, model, t.score, "order", only_task, only_shots, ranked_by, control_seed, heads
""",  # noqa: S608
    **{name: _ABOUT_REMOVALS[name] for name in (
        "order", "ranked_by", "control_seed", "heads", "heads_removed")},
    score="prefix_matching, copying, or copying_own_value (as the paper's code was released)",
    task="task that the order is for, null for all",
    shots="demonstrations that the order is for, null for all",
    retained="percentage of the sum of the score over all heads; null if that is nothing",
)
