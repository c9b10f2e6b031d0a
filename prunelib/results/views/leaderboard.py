"""The two views that compare methods: ``comparisons`` and ``leaderboard``.

Both reduce the pairs to histograms (distinct differences and how often each occurs), which is
all that the Python functions ``bootstrap``, ``sign_flip`` and ``mcnemar``
(:mod:`prunelib.results.views.sql_functions`) need.
"""

from __future__ import annotations

from prunelib.results.views.base import view

COMPARISONS = view(
    "comparisons",
    "each intervention against the baseline, and each chosen one against its random controls, "
    "prompt by prompt, on the report split",
    "run model method intervention control_seed reference task shots n accuracy reference_accuracy "
    "difference difference_low difference_high only_this_right only_reference_right p_value "
    "q_value copying_error reference_copying_error copying_p_value",
    """
WITH answered AS MATERIALIZED (
    SELECT DISTINCT run, model, engine, intervention, method, role, control_seed, task, shots, seed,
           example, format, correct, copied
    FROM _answers
    WHERE purpose = 'report' AND repeat = 0 AND role IN ('baseline', 'chosen', 'control')
),
against AS (
    SELECT DISTINCT a.run, a.model, a.method, a.intervention, 'baseline' AS reference,
           b.intervention AS other, NULL AS other_seed, NULL AS only_task
    FROM _labels a JOIN _labels b ON b.run = a.run AND b.model = a.model AND b.role = 'baseline'
    WHERE a.role IN ('chosen', 'control')
    UNION ALL
    SELECT DISTINCT run, model, method, choice, 'random', intervention, control_seed, only_task
    FROM _matched
),
others AS (
    SELECT DISTINCT run, model, intervention AS other, engine, task, shots, seed, example, format,
           correct, copied
    FROM answered WHERE role = 'baseline' OR (role = 'control' AND method = 'random')
),
prompts AS (
    SELECT a.run, a.model, a.method, a.intervention, a.control_seed, g.reference, a.task, a.shots,
           count(*) AS pairs, sum(a.correct) AS correct, sum(r.correct) AS reference_correct,
           sum(a.copied) AS copied, sum(r.copied) AS reference_copied,
           sum((a.correct > r.correct)::INTEGER) AS gained,
           sum((a.correct < r.correct)::INTEGER) AS lost,
           sum((a.copied > r.copied)::INTEGER) AS more_copied,
           sum((a.copied < r.copied)::INTEGER) AS less_copied
    FROM answered a
    JOIN against g ON g.run = a.run AND g.model = a.model AND g.method = a.method
     AND g.intervention = a.intervention AND coalesce(g.only_task, a.task) = a.task
    JOIN others r ON r.run = a.run AND r.model = a.model AND r.other = g.other
     AND r.engine = a.engine AND r.task = a.task AND r.shots = a.shots AND r.seed = a.seed
     AND r.example = a.example AND r.format = a.format
    WHERE a.role <> 'baseline'
    GROUP BY a.run, a.model, a.method, a.intervention, a.control_seed, g.reference, a.task, a.shots,
             a.engine, a.seed, a.example, a.format
),
totals AS (
    SELECT run, model, method, intervention, control_seed, reference, task, shots,
           sum(pairs)::BIGINT AS n, max(pairs) AS most_pairs,
           sum(correct) / sum(pairs) AS accuracy,
           sum(reference_correct) / sum(pairs) AS reference_accuracy,
           sum(copied) / sum(pairs) AS copying_error,
           sum(reference_copied) / sum(pairs) AS reference_copying_error,
           sum(gained)::BIGINT AS only_this_right, sum(lost)::BIGINT AS only_reference_right,
           sum(more_copied)::BIGINT AS more_copied, sum(less_copied)::BIGINT AS less_copied,
           histogram((gained - lost) / pairs) AS gaps,
           histogram((more_copied - less_copied) / pairs) AS copying_gaps
    FROM prompts
    GROUP BY ALL
),
tested AS (
    SELECT *, CASE WHEN most_pairs = 1 THEN mcnemar(only_this_right, only_reference_right)
                   ELSE histogram_flip(gaps) END AS p_value,
           CASE WHEN most_pairs = 1 THEN mcnemar(more_copied, less_copied)
                ELSE histogram_flip(copying_gaps) END AS copying_p_value,
           histogram_bootstrap(gaps) AS interval
    FROM totals
),
ranked AS (
    SELECT *, row_number() OVER (PARTITION BY run, model, reference ORDER BY p_value) AS place,
           count(*) OVER (PARTITION BY run, model, reference) AS family
    FROM tested
)
SELECT run, model, method, intervention, control_seed, reference, task, shots, n, accuracy,
       reference_accuracy, accuracy - reference_accuracy AS difference,
       interval[1] AS difference_low, interval[2] AS difference_high,
       only_this_right, only_reference_right, p_value,
       least(1, min(p_value * family / place) OVER (
           PARTITION BY run, model, reference ORDER BY p_value DESC)) AS q_value,
       copying_error, reference_copying_error, copying_p_value
FROM ranked
ORDER BY run, model, reference, method, control_seed, task, shots
""",
    reference="baseline, or random: random components of the same layer, site and size, all "
    "seeds pooled",
    n="pairs of answers to the same prompt",
    reference_accuracy="share of right answers of the reference",
    difference="accuracy - reference_accuracy",
    difference_low="lower end of the 95% interval of difference (bootstrap over prompts)",
    difference_high="upper end of the 95% interval of difference (bootstrap over prompts)",
    only_this_right="pairs that only the intervention got right",
    only_reference_right="pairs that only the reference got right",
    p_value="exact McNemar test; with several control seeds a sign-flip test over prompts, since "
    "pairs that share a prompt are not independent",
    q_value="p_value after Benjamini-Hochberg within run, model and reference",
    reference_copying_error="copying error of the reference",
    copying_p_value="p_value for the copying errors",
)

# A prompt is (engine, task, shots, seed, example, format); a query is (task, seed, example). The
# answers of one query are averaged before anything is resampled, because they are not
# independent. Per task the queries' values become a histogram; `task` is then the stratum.
LEADERBOARD = view(
    "leaderboard",
    "one line per method, and per set of random controls: means over the tasks of the report "
    "split; intervals and tests over queries (task, seed, example), tasks taken as given",
    "run model method matched_to layer rate interventions tasks n accuracy accuracy_low "
    "accuracy_high copying_error copying_error_low copying_error_high difference difference_low "
    "difference_high p_value difference_to_random difference_to_random_low "
    "difference_to_random_high",
    """
WITH answered AS MATERIALIZED (
    SELECT *, coalesce(matched_to, '') AS matched FROM _lines
    WHERE purpose = 'report' AND repeat = 0 AND role IN ('baseline', 'chosen', 'control')
),
methods AS (
    SELECT run, model, method, role, matched, count(DISTINCT intervention) AS interventions,
           CASE WHEN count(DISTINCT layer) = 1 THEN any_value(layer) END AS layer,
           CASE WHEN count(DISTINCT rate) = 1 THEN any_value(rate) END AS rate,
           count(*) AS n
    FROM answered GROUP BY run, model, method, role, matched
),
random AS (
    SELECT m.run, m.model, m.method, m.choice AS intervention, m.rate, engine, task, shots, seed,
           example, format, avg(correct) AS correct
    FROM _matched m
    JOIN (
        SELECT DISTINCT run, model, intervention, engine, task, shots, seed, example, format,
               correct
        FROM answered WHERE role = 'control' AND method = 'random'
    ) USING (run, model, intervention)
    WHERE coalesce(m.only_task, task) = task
    GROUP BY ALL
),
prompts AS MATERIALIZED (
    SELECT a.run, a.model, a.method, a.role, a.matched, a.engine, a.task, a.shots, a.seed,
           a.example, a.format, avg(a.correct) AS correct, avg(a.copied) AS copied,
           avg(a.correct - r.correct) AS gap_to_random
    FROM answered a
    LEFT JOIN random r
      ON a.role = 'chosen' AND r.run = a.run AND r.model = a.model AND r.method = a.method
     AND r.intervention = a.intervention AND r.rate = a.rate AND r.engine = a.engine
     AND r.task = a.task AND r.shots = a.shots AND r.seed = a.seed AND r.example = a.example
     AND r.format = a.format
    GROUP BY ALL
),
paired AS (
    SELECT p.*, CASE WHEN p.role <> 'baseline' THEN p.correct - b.correct END AS gap
    FROM prompts p
    LEFT JOIN (SELECT * FROM prompts WHERE role = 'baseline') b
        USING (run, model, engine, task, shots, seed, example, format)
),
queries AS (
    SELECT run, model, method, role, matched, task, seed, example,
           round(avg(correct), 12) AS correct, round(avg(copied), 12) AS copied,
           round(avg(gap), 12) AS gap,
           round(avg(gap_to_random), 12) AS gap_to_random
    FROM paired GROUP BY run, model, method, role, matched, task, seed, example
),
per_task AS (
    SELECT run, model, method, role, matched, task, avg(correct) AS accuracy,
           avg(copied) AS copying_error, avg(gap) AS difference,
           avg(gap_to_random) AS difference_to_random,
           histogram(correct) AS h, histogram(copied) AS h_copied,
           histogram(gap) FILTER (gap IS NOT NULL) AS h_gap,
           histogram(gap_to_random) FILTER (gap_to_random IS NOT NULL) AS h_random
    FROM queries GROUP BY run, model, method, role, matched, task
),
per_method AS (
    SELECT run, model, method, role, matched, count(*) AS tasks, avg(accuracy) AS accuracy,
           avg(copying_error) AS copying_error, avg(difference) AS difference,
           avg(difference_to_random) AS difference_to_random,
           list(task ORDER BY task) AS names,
           list(h ORDER BY task) AS h,
           list(h_copied ORDER BY task) AS h_copied,
           list(coalesce(h_gap, MAP {}) ORDER BY task) AS h_gap,
           list(coalesce(h_random, MAP {}) ORDER BY task) AS h_random
    FROM per_task GROUP BY run, model, method, role, matched
),
stacked AS (
    SELECT * REPLACE (stack(h, names) AS h, stack(h_copied, names) AS h_copied,
                      stack(h_gap, names) AS h_gap,
                      stack(h_random, names) AS h_random)
    FROM per_method
),
tested AS (
    SELECT * EXCLUDE (names, h, h_copied, h_gap, h_random),
           bootstrap(h.v, h.c, h.s) AS accuracy_interval,
           bootstrap(h_copied.v, h_copied.c, h_copied.s) AS copying_interval,
           bootstrap(h_gap.v, h_gap.c, h_gap.s) AS interval,
           bootstrap(h_random.v, h_random.c, h_random.s) AS random_interval,
           CASE WHEN difference IS NOT NULL THEN sign_flip(h_gap.v, h_gap.c, h_gap.s)
           END AS p_value
    FROM stacked
)
SELECT run, model, method, nullif(matched, '') AS matched_to, layer, rate, interventions, tasks, n,
       accuracy,
       accuracy_interval[1] AS accuracy_low, accuracy_interval[2] AS accuracy_high,
       copying_error, copying_interval[1] AS copying_error_low,
       copying_interval[2] AS copying_error_high,
       difference, interval[1] AS difference_low, interval[2] AS difference_high,
       p_value, difference_to_random, random_interval[1] AS difference_to_random_low,
       random_interval[2] AS difference_to_random_high
FROM tested JOIN methods USING (run, model, method, role, matched)
ORDER BY run, model, role <> 'baseline', method, matched
""",
    copying_error_low="lower end of the 95% interval of copying_error (bootstrap over queries)",
    copying_error_high="upper end of the 95% interval of copying_error (bootstrap over queries)",
    interventions="different interventions, such as the seeds of a control",
    tasks="tasks",
    accuracy="share of right answers, mean over tasks",
    accuracy_low="lower end of the 95% interval of accuracy (bootstrap over queries)",
    accuracy_high="upper end of the 95% interval of accuracy (bootstrap over queries)",
    copying_error="copying error, mean over tasks",
    difference="accuracy minus that of the baseline on the same prompts, mean over tasks",
    difference_low="lower end of the 95% interval of difference (bootstrap over queries)",
    difference_high="upper end of the 95% interval of difference (bootstrap over queries)",
    p_value="sign-flip permutation test of difference over queries, two-sided",
    difference_to_random="of what was chosen: accuracy minus that of random components of the same "
    "layer, site and size (mean over their seeds)",
    difference_to_random_low="lower end of its 95% interval (bootstrap over queries)",
    difference_to_random_high="upper end of its 95% interval (bootstrap over queries)",
)

VIEWS = (LEADERBOARD, COMPARISONS)
