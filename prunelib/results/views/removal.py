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
    FROM removals JOIN _scope USING (unit_id) WHERE {where}
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
    "example correct untouched",
    f"""
WITH {_USES.strip().format(where="true")},
given AS MATERIALIZED (
    SELECT run, model, engine, intervention, task, shots, seed, example, format, correct
    FROM _given WHERE purpose = 'report' AND repeat = 0
)
SELECT s.run, s.model, s."order", s.ranked_by, s.control_seed, a.task, a.shots, s.heads, s.ffns,
       s.heads_removed, s.ffns_removed, a.seed, a.example, a.correct, b.correct AS untouched
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
    "order, from none of them on (formulas.md §3.3)",
    "run model score order ranked_by control_seed task shots heads heads_removed retained",
    f"""
WITH {_USES.strip().format(where="ffns = 0")},
capacity AS (
    SELECT DISTINCT run, model, layer, "index", score, "value"
    FROM component_scores JOIN _scope USING (unit_id)
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
