"""The view that compares methods with references, task by task."""

from __future__ import annotations

from prunelib.results.views.base import view

#: Answers of the report split that comparisons are made of (``_pairs`` below, and ``leaderboard``).
_REPORTED = "purpose = 'report' AND repeat = 0 AND role IN ('baseline', 'chosen', 'control')"

# A line per pair of cells with common prompts. `set` tells the random draws of a reference apart.
PAIRS = view(
    "_pairs",
    "answers on the report split beside those of each reference to the same prompts",
    "run model method role matched_to intervention control_seed reference other set task shots "
    "seed format engine cell other_cell gaps",
    f"""
WITH answered AS MATERIALIZED (
    SELECT run, model, method, role, matched_to, intervention, rate, control_seed, engine, task,
           shots, seed, format, cell
    FROM _line_cells WHERE {_REPORTED}
),
compared AS (
    SELECT DISTINCT a.run, a.model, a.method, a.role, a.intervention, NULL AS rate,
           NULL AS only_task, 'baseline' AS reference, b.intervention AS other, NULL AS "set"
    FROM answered a JOIN _labels b ON b.run = a.run AND b.model = a.model AND b.role = 'baseline'
    WHERE a.role <> 'baseline'
    UNION ALL
    SELECT run, model, method, 'chosen', choice, rate, only_task, reference, intervention,
           control_seed
    FROM _drawn
),
others AS (
    SELECT DISTINCT run, model, intervention AS other, engine, task, shots, seed, format,
           cell AS other_cell
    FROM answered
    WHERE role = 'baseline' OR (role = 'control' AND method IN ('random', 'random_search'))
),
beside AS (
    SELECT a.*, g.reference, g.other, g."set"
    FROM answered a
    JOIN compared g
      ON g.run = a.run AND g.model = a.model AND g.method = a.method AND g.role = a.role
     AND g.intervention = a.intervention AND coalesce(g.only_task, a.task) = a.task
     AND (g.reference = 'baseline' OR g.rate IS NOT DISTINCT FROM a.rate)
)
SELECT * FROM (
    SELECT run, model, method, role, matched_to, intervention, control_seed, reference, other,
           "set", task, shots, seed, format, engine, cell, other_cell,
           gaps(cell, other_cell) AS gaps
    FROM beside JOIN others USING (run, model, other, engine, task, shots, seed, format)
) WHERE gaps.n > 0
""",  # noqa: S608
    reference="baseline, random or random_search",
    other="digest of the reference's intervention",
    set="seed of the reference's random draw, null for the baseline",
    seed="seed of queries and demonstrations",
    format="prompt format",
    cell="numbers of the parts that hold the answers; those of the first unit count",
    other_cell="the same of the reference",
    gaps="pairs, and how many differ in which way",
)

COMPARISONS = view(
    "comparisons",
    "each intervention against the baseline, and each chosen one against its random controls and "
    "against random searches, prompt by prompt, on the report split",
    "run model method role intervention control_seed reference sets task shots n prompts queries "
    "accuracy reference_accuracy difference difference_low difference_high only_this_right "
    "only_reference_right p_value q_value copying_error reference_copying_error copying_p_value "
    "copying_q_value",
    """
WITH pairs AS MATERIALIZED (
    -- Random controls of several choices have several lines in _pairs: each pair counts once.
    SELECT DISTINCT * EXCLUDE (matched_to) FROM _pairs
),
draws AS (
    SELECT run, model, method, role, intervention, control_seed, reference, task, shots,
           count(*) AS sets, stddev_samp(difference) AS sd, stddev_samp(more_copied) AS copying_sd
    FROM (
        SELECT run, model, method, role, intervention, control_seed, reference, task, shots, "set",
               sum(gaps.gained - gaps.lost) / sum(gaps.n) AS difference,
               sum(gaps.more_copied - gaps.less_copied) / sum(gaps.n) AS more_copied
        FROM pairs WHERE reference <> 'baseline' GROUP BY ALL
    ) GROUP BY ALL
),
totals AS (
    SELECT run, model, method, role, intervention, control_seed, reference, task, shots,
           bool_and(intervention = other) AS same,
           tally_pairs(list(cell), list(other_cell)) AS sums
    FROM pairs GROUP BY ALL
),
tested AS (
    SELECT t.*, unnest(sums), d.sets,
           CASE WHEN t.reference = 'baseline' THEN sign_flip([sums.flips])
                ELSE drawn_p([sums.pairs], d.sd, d.sets) END AS p_value,
           CASE WHEN t.reference = 'baseline' THEN sign_flip([sums.copied_flips])
                ELSE drawn_p([sums.copied_pairs], d.copying_sd, d.sets) END AS copying_p_value,
           CASE WHEN same THEN [0.0, 0.0]  -- nothing is switched off: no estimate
                WHEN t.reference = 'baseline' THEN difference_interval([sums.pairs])
                ELSE drawn_difference_interval([sums.pairs], d.sd, d.sets) END AS interval
    FROM totals t
    LEFT JOIN draws d
      ON d.run = t.run AND d.model = t.model AND d.method = t.method AND d.role = t.role
     AND d.intervention = t.intervention AND d.reference = t.reference AND d.task = t.task
     AND d.shots = t.shots AND d.control_seed IS NOT DISTINCT FROM t.control_seed
),
-- A test under several names (methods that chose the same ablation) is one test of its family.
tests AS (
    SELECT DISTINCT run, model, reference, intervention, task, shots, kind, p
    FROM (
        SELECT *, 'accuracy' AS kind, p_value AS p FROM tested
        UNION ALL SELECT *, 'copying', copying_p_value FROM tested
    ) WHERE role = 'chosen' AND p IS NOT NULL
),
corrected AS (
    SELECT run, model, reference, kind, p, least(1, min(p * family / place) OVER (
               PARTITION BY run, model, reference, kind ORDER BY p DESC)) AS q
    FROM (
        SELECT *, count(*) OVER (PARTITION BY run, model, reference, kind) AS family,
               row_number() OVER (PARTITION BY run, model, reference, kind ORDER BY p) AS place
        FROM tests
    )
),
q AS (SELECT run, model, reference, kind, p, min(q) AS q FROM corrected GROUP BY ALL)
SELECT t.run, t.model, method, role, intervention, control_seed, t.reference, sets, task, shots, n,
       prompts, queries, correct / n AS accuracy, other_correct / n AS reference_accuracy,
       (gained - lost) / n AS difference,
       interval[1] AS difference_low, interval[2] AS difference_high,
       gained AS only_this_right, lost AS only_reference_right, p_value,
       CASE WHEN role = 'chosen' THEN a.q END AS q_value,
       copied / n AS copying_error, other_copied / n AS reference_copying_error, copying_p_value,
       CASE WHEN role = 'chosen' THEN c.q END AS copying_q_value
FROM tested t
LEFT JOIN q a ON a.run = t.run AND a.model = t.model AND a.reference = t.reference
 AND a.kind = 'accuracy' AND a.p = t.p_value
LEFT JOIN q c ON c.run = t.run AND c.model = t.model AND c.reference = t.reference
 AND c.kind = 'copying' AND c.p = t.copying_p_value
ORDER BY t.run, t.model, t.reference, method, control_seed, task, shots
""",
    reference="baseline; random: random components of the same layer, site and size, all sets "
    "together; random_search: the choices of random rankings that went through the same search",
    sets="random sets, or random searches, null for the baseline",
    n="pairs of answers to the same prompt",
    prompts="prompts that both answered",
    queries="different queries that these ask about",
    reference_accuracy="share of right answers of the reference",
    difference="accuracy - reference_accuracy",
    difference_low="lower end of the 95% interval of difference (over queries and, of random sets, "
    "over these; null for a single set)",
    difference_high="upper end of the 95% interval of difference",
    only_this_right="pairs that only the intervention got right",
    only_reference_right="pairs that only the reference got right",
    p_value="against the baseline the mid-p value of a sign-flip test over queries (McNemar's, "
    "with one answer per query); against random sets that of the interval, null for a single set",
    q_value="p_value after Benjamini-Hochberg; the family are all chosen interventions, tasks and "
    "numbers of shots of a run, model and reference, equal interventions once; null for controls",
    reference_copying_error="copying error of the reference",
    copying_p_value="p_value for the copying errors",
    copying_q_value="copying_p_value after Benjamini-Hochberg, within a family like that of "
    "q_value",
)

VIEWS = (PAIRS, COMPARISONS)
