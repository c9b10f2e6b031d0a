"""The views on what is left of a model when heads and FFNs are removed.

Definitions are those of :mod:`prunelib.heads.ranking` and :mod:`prunelib.heads.induction`.
"""

from __future__ import annotations

from prunelib.results.views.base import view

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
    SELECT DISTINCT run, model, intervention, "order", task AS only_task, shots AS only_shots,
           ranked_by, seed AS control_seed, heads, ffns, heads_removed, ffns_removed
    FROM removals JOIN _scope USING (unit_id, model) WHERE {where}
),
baseline AS (SELECT DISTINCT run, model, intervention FROM _labels WHERE role = 'baseline'),
shares AS (
    SELECT * FROM uses
    UNION ALL
    SELECT DISTINCT run, model, b.intervention, "order", only_task, only_shots, ranked_by,
           control_seed, 0.0, 0.0, 0, 0
    FROM uses JOIN baseline b USING (run, model)
)"""

#: Answers after each removal beside those of the untouched model to the same prompts.
REMOVAL_PAIRS = view(
    "_removal_pairs",
    "answers on the report split without removed heads and FFNs, and with them",
    "run model order ranked_by control_seed task shots heads ffns heads_removed ffns_removed seed "
    "example query correct untouched",
    f"""
WITH {_USES.strip().format(where="true")},
given AS MATERIALIZED (
    SELECT run, model, engine, intervention, task, shots, seed, example, format, query, correct
    FROM _given WHERE purpose = 'report' AND repeat = 0
)
SELECT s.run, s.model, s."order", s.ranked_by, s.control_seed, a.task, a.shots, s.heads, s.ffns,
       s.heads_removed, s.ffns_removed, a.seed, a.example, a.query, a.correct,
       b.correct AS untouched
FROM shares s
JOIN given a
  ON a.run = s.run AND a.model = s.model AND a.intervention = s.intervention
 AND coalesce(s.only_task, a.task) = a.task AND coalesce(s.only_shots, a.shots) = a.shots
JOIN (SELECT given.* FROM given JOIN baseline USING (run, model, intervention)) b
  ON b.run = a.run AND b.model = a.model AND b.engine = a.engine AND b.task = a.task
 AND b.shots = a.shots AND b.seed = a.seed AND b.example = a.example AND b.format = a.format
""",  # noqa: S608
    **_ABOUT_REMOVALS,
    seed="seed of queries and demonstrations",
    example="example within task, split, purpose, shots and seed",
    query="input that is asked about",
    correct="1 if right",
    untouched="1 if the untouched model is right",
)

REMOVAL_CURVES = view(
    "removal_curves",
    "accuracy on the report split while heads, FFNs or both are removed in each order, from none "
    "of them on",
    "run model order ranked_by control_seed task shots heads ffns heads_removed ffns_removed "
    "prompts queries accuracy accuracy_low accuracy_high baseline_accuracy difference "
    "difference_low difference_high",
    """
WITH by_query AS (
    SELECT run, model, "order", ranked_by, control_seed, task, shots, heads, ffns, heads_removed,
           ffns_removed, query, count(*) AS n, sum(correct) AS correct,
           sum(untouched) AS untouched, sum((correct > untouched)::INTEGER) AS gained,
           sum((correct < untouched)::INTEGER) AS lost
    FROM _removal_pairs GROUP BY ALL
),
curves AS (
    SELECT run, model, "order", ranked_by, control_seed, task, shots, heads, ffns, heads_removed,
           ffns_removed, sum(n)::BIGINT AS prompts, count(*) AS queries,
           sum(correct) / sum(n) AS accuracy, sum(untouched) / sum(n) AS baseline_accuracy,
           share_interval([share_sums(n, correct)]) AS mark,
           difference_interval([pair_sums(n, gained, lost)]) AS gap
    FROM by_query GROUP BY ALL
),
-- One random order says nothing of others.
tested AS (
    SELECT *, CASE WHEN "order" <> 'random' THEN mark END AS marks,
           CASE WHEN "order" = 'random' THEN NULL
                WHEN heads_removed + ffns_removed = 0 THEN [0.0, 0.0]
                ELSE gap END AS gaps
    FROM curves
)
SELECT run, model, "order", ranked_by, control_seed, task, shots, heads, ffns, heads_removed,
       ffns_removed, prompts, queries, accuracy, marks[1] AS accuracy_low,
       marks[2] AS accuracy_high, baseline_accuracy, accuracy - baseline_accuracy AS difference,
       gaps[1] AS difference_low, gaps[2] AS difference_high
FROM tested
ORDER BY run, model, task, shots, "order", ranked_by, control_seed, heads, ffns
""",
    **_ABOUT_REMOVALS,
    accuracy_low="lower end of the 95% interval of accuracy (over queries); null for a random "
    "order, one of which says nothing of others (view removal_means)",
    accuracy_high="upper end of the same",
    difference_low="lower end of the 95% interval of difference (likewise)",
    difference_high="upper end of the same",
)

REMOVAL_MEANS = view(
    "removal_means",
    "the same as means over the tasks and, of random orders, over these; intervals take the tasks "
    "as given, and random orders as draws",
    "run model order shots heads ffns orders tasks prompts queries accuracy accuracy_low "
    "accuracy_high baseline_accuracy difference difference_low difference_high random_orders "
    "rank_p_value",
    """
WITH by_query AS (
    SELECT run, model, "order", shots, heads, ffns, task, query, count(*) AS n,
           count(DISTINCT (seed, example)) AS prompts, sum(correct) AS correct,
           sum(untouched) AS untouched, sum((correct > untouched)::INTEGER) AS gained,
           sum((correct < untouched)::INTEGER) AS lost
    FROM _removal_pairs GROUP BY ALL
),
of_tasks AS (
    SELECT run, model, "order", shots, heads, ffns, task, sum(prompts)::BIGINT AS prompts,
           count(*) AS queries, sum(correct) / sum(n) AS accuracy,
           sum(untouched) / sum(n) AS baseline_accuracy, share_sums(n, correct) AS marks,
           pair_sums(n, gained, lost) AS gaps
    FROM by_query GROUP BY ALL
),
means AS (
    SELECT run, model, "order", shots, heads, ffns, count(*) AS tasks,
           sum(prompts)::BIGINT AS prompts, sum(queries)::BIGINT AS queries,
           avg(accuracy) AS accuracy, avg(baseline_accuracy) AS baseline_accuracy,
           list(marks ORDER BY task) AS marks, list(gaps ORDER BY task) AS gaps
    FROM of_tasks GROUP BY ALL
),
draws AS (
    SELECT run, model, "order", shots, heads, ffns, count(*) AS orders,
           stddev_samp(accuracy) AS sd, stddev_samp(difference) AS difference_sd,
           list(accuracy) AS accuracies
    FROM (
        SELECT run, model, "order", shots, heads, ffns, control_seed, avg(accuracy) AS accuracy,
               avg(difference) AS difference
        FROM (
            SELECT run, model, "order", shots, heads, ffns, control_seed, task,
                   avg(correct) AS accuracy, avg(correct - untouched) AS difference
            FROM _removal_pairs WHERE "order" = 'random' GROUP BY ALL
        ) GROUP BY ALL
    ) GROUP BY ALL
),
tested AS (
    SELECT m.*, coalesce(d.orders, 1) AS orders,
           CASE WHEN d.orders IS NULL THEN share_interval(m.marks)
                ELSE drawn_share_interval(m.marks, d.sd, d.orders) END AS mark,
           CASE WHEN m.heads + m.ffns = 0 THEN [0.0, 0.0]
                WHEN d.orders IS NULL THEN difference_interval(m.gaps)
                ELSE drawn_difference_interval(m.gaps, d.difference_sd, d.orders) END AS gap
    FROM means m LEFT JOIN draws d USING (run, model, "order", shots, heads, ffns)
)
SELECT t.run, t.model, t."order", t.shots, t.heads, t.ffns, t.orders, tasks, prompts, queries,
       accuracy, mark[1] AS accuracy_low, mark[2] AS accuracy_high, baseline_accuracy,
       accuracy - baseline_accuracy AS difference, gap[1] AS difference_low,
       gap[2] AS difference_high, r.orders AS random_orders,
       CASE WHEN t."order" <> 'random' AND t.heads + t.ffns > 0 THEN (1 + len(list_filter(
           r.accuracies, lambda x: x >= t.accuracy - 1e-9))) / (1 + r.orders)
       END AS rank_p_value
FROM tested t
LEFT JOIN draws r ON r.run = t.run AND r.model = t.model AND r.shots = t.shots
 AND r.heads = t.heads AND r.ffns = t.ffns
ORDER BY t.run, t.model, t.shots, t."order", t.heads, t.ffns
""",
    **{name: _ABOUT_REMOVALS[name] for name in (
        "order", "heads", "ffns", "baseline_accuracy", "difference")},
    orders="random orders behind the line, 1 for others",
    tasks="tasks",
    accuracy="share of right answers, mean over tasks",
    accuracy_low="lower end of its 95% interval (over queries and random orders; null for a "
    "single random order)",
    accuracy_high="upper end of the same",
    difference_low="lower end of its 95% interval (likewise)",
    difference_high="upper end of the same",
    random_orders="random orders of which the same shares were removed, null if there are none",
    rank_p_value="where an order stands among m random ones: (1 + r) / (1 + m), with r the random "
    "orders that leave as high an accuracy or a higher one",
)

RETENTION = view(
    "retention",
    "how much of the heads' prefix matching and copying is left while heads are removed in each "
    "order, from none of them on (formulas.md §3.3)",
    "run model score order ranked_by control_seed task shots heads heads_removed retained",
    f"""
WITH {_USES.strip().format(where="ffns = 0")},
capacity AS (
    SELECT DISTINCT run, model, layer, "index", score, "value"
    FROM component_scores JOIN _scope USING (unit_id, model)
    WHERE site = 'head' AND task IS NULL
),
totals AS (SELECT run, model, score, sum("value") AS total FROM capacity GROUP BY ALL),
lost AS (
    SELECT run, model, intervention, score, sum("value") AS lost
    FROM (FROM _components WHERE role = 'removal' AND site = 'head')
    JOIN capacity USING (run, model, layer, "index")
    GROUP BY ALL
)
SELECT run, model, t.score, "order", ranked_by, control_seed, only_task AS task,
       only_shots AS shots, heads, heads_removed,
       CASE WHEN total > 0 THEN 100 * (total - coalesce(lost, 0)) / total END AS retained
FROM shares s JOIN totals t USING (run, model)
LEFT JOIN lost l USING (run, model, intervention, score)
ORDER BY run, model, t.score, "order", only_task, only_shots, ranked_by, control_seed, heads
""",  # noqa: S608
    **{name: _ABOUT_REMOVALS[name] for name in (
        "order", "ranked_by", "control_seed", "heads", "heads_removed")},
    score="prefix_matching, copying, or copying_own_value (as the paper's code was released)",
    task="task that the order is for, null for all",
    shots="demonstrations that the order is for, null for all",
    retained="percentage of the sum of the score over all heads; null if that is nothing",
)

VIEWS = (REMOVAL_PAIRS, REMOVAL_CURVES, REMOVAL_MEANS, RETENTION)
