"""The view that compares ways to change a model, task by task: pruning, steering, fine-tuning."""

from __future__ import annotations

from prunelib.results.views.base import view

# A line is (run, model, task, method), over shots and seeds. Random rankings that went through the
# search are draws, as in leaderboard. Random sets of a choice's layer and size are left out: they
# had no search of their own.
METHODS = view(
    "methods",
    "one line per task and method on the report split: the untouched model, random pruning with "
    "the same search, and each choice of the search and fine-tuning, with what it took",
    "run model task method n prompts queries accuracy accuracy_low accuracy_high copying_error "
    "difference difference_low difference_high p_value q_value copying_difference samples searched "
    "candidates seconds_to_choose seconds peak_memory_mb",
    """
WITH labels AS MATERIALIZED (
    SELECT * FROM _labels WHERE method <> 'random'
),
answered AS MATERIALIZED (
    SELECT run, model, task, method, role, intervention, query, engine, shots, seed, example,
           format, correct, copied, control_seed
    FROM _answers
    WHERE purpose = 'report' AND repeat = 0 AND role IN ('baseline', 'chosen', 'control')
      AND method <> 'random'
),
totals AS (
    SELECT run, model, task, method, role, sum(n)::BIGINT AS n, sum(prompts)::BIGINT AS prompts,
           count(*) AS queries, sum(correct) / sum(n) AS accuracy,
           sum(copied) / sum(n) AS copying_error, [share_sums(n, correct)] AS shares
    FROM (
        SELECT run, model, task, method, role, query, count(*) AS n,
               count(DISTINCT (engine, shots, seed, example, format)) AS prompts,
               sum(correct) AS correct, sum(copied) AS copied
        FROM answered GROUP BY ALL
    ) GROUP BY ALL
),
own_draws AS (
    SELECT run, model, task, method, count(*) AS sets, stddev_samp(accuracy) AS sd
    FROM (
        SELECT run, model, task, method, control_seed, avg(correct) AS accuracy
        FROM answered WHERE method = 'random_search' GROUP BY ALL
    ) GROUP BY ALL
),
pairs AS MATERIALIZED (
    SELECT a.run, a.model, a.task, a.method, a.role, a.intervention, b.intervention AS other,
           a.query, a.control_seed, a.correct, b.correct AS other_correct, a.copied,
           b.copied AS other_copied
    FROM answered a
    JOIN answered b USING (run, model, engine, task, shots, seed, example, format)
    WHERE a.role <> 'baseline' AND b.role = 'baseline'
),
draws AS (
    SELECT run, model, task, method, count(*) AS sets, stddev_samp(difference) AS sd
    FROM (
        SELECT run, model, task, method, control_seed, avg(correct - other_correct) AS difference
        FROM pairs WHERE method = 'random_search' GROUP BY ALL
    ) GROUP BY ALL
),
paired AS (
    SELECT run, model, task, method, role, bool_and(same) AS same,
           (sum(gained) - sum(lost)) / sum(n) AS difference, sum(more_copied) / sum(n)
               AS copying_difference,
           [pair_sums(n, gained, lost)] AS sums, [flip_sums(n, gained - lost)] AS flips
    FROM (
        SELECT run, model, task, method, role, query, count(*) AS n,
               bool_and(intervention = other) AS same,
               sum((correct > other_correct)::INTEGER) AS gained,
               sum((correct < other_correct)::INTEGER) AS lost,
               sum(copied - other_copied) AS more_copied
        FROM pairs GROUP BY ALL
    ) GROUP BY ALL
),
compared AS (
    SELECT p.*,
           CASE WHEN p.method <> 'random_search' THEN sign_flip(flips)
                ELSE drawn_p(sums, d.sd, d.sets) END AS p_value,
           CASE WHEN same THEN [0.0, 0.0]  -- nothing is changed: no estimate
                WHEN p.method <> 'random_search' THEN difference_interval(sums)
                ELSE drawn_difference_interval(sums, d.sd, d.sets) END AS interval
    FROM paired p LEFT JOIN draws d USING (run, model, task, method)
),
-- Methods with the same interventions are one test of the family.
tests AS (
    SELECT DISTINCT run, model, task, interventions, p_value
    FROM compared
    JOIN (SELECT run, model, task, method, role,
                 list(DISTINCT intervention ORDER BY intervention) AS interventions
          FROM pairs GROUP BY ALL) USING (run, model, task, method, role)
    WHERE method <> 'random_search' AND p_value IS NOT NULL
),
corrected AS (
    SELECT run, model, p_value, min(q) AS q_value
    FROM (
        SELECT run, model, p_value, least(1, min(p_value * family / place) OVER (
                   PARTITION BY run, model ORDER BY p_value DESC)) AS q
        FROM (
            SELECT *, count(*) OVER (PARTITION BY run, model) AS family,
                   row_number() OVER (PARTITION BY run, model ORDER BY p_value) AS place
            FROM tests
        )
    ) GROUP BY ALL
),
asked AS MATERIALIZED (
    SELECT DISTINCT run, model, intervention, task, purpose, split, shots, seed, example, unit_id
    FROM predictions JOIN _scope USING (unit_id, model)
    WHERE purpose IN ('search', 'report') AND repeat = 0
),
searched AS MATERIALIZED (
    SELECT l.run, l.model, l.method, l.only_task, l.control_seed, l.intervention, a.unit_id,
           a.split, a.shots, a.seed, a.example
    FROM labels l
    JOIN asked a ON a.run = l.run AND a.model = l.model AND a.intervention = l.intervention
     AND a.purpose = 'search' AND a.task = l.proxy
    WHERE l.role = 'grid'
),
tried AS (
    SELECT run, model, method, only_task,
           count(DISTINCT (split, shots, seed, example)) AS searched,
           (count(DISTINCT (coalesce(control_seed, -1), intervention))
               / count(DISTINCT coalesce(control_seed, -1)))::DOUBLE AS candidates
    FROM searched GROUP BY ALL
),
-- Units behind a method, and the task that they are for, null for all.
behind AS (
    SELECT DISTINCT run, model, method, only_task, unit_id, 'choose' AS part FROM searched
    UNION
    SELECT DISTINCT l.run, l.model, l.method, l.only_task, u.used_unit, 'choose'
    FROM labels l
    JOIN (SELECT run, model, method, proxy, used_unit
          FROM attribution_units JOIN _scope USING (unit_id, model)) u
      ON u.run = l.run AND u.model = l.model AND u.method = l.method
     AND u.proxy = coalesce(l.only_task, u.proxy)
    WHERE l.role = 'chosen'
    UNION
    SELECT DISTINCT l.run, l.model, l.method, a.task, a.unit_id, 'answer'
    FROM labels l
    JOIN asked a ON a.run = l.run AND a.model = l.model AND a.intervention = l.intervention
     AND a.purpose = 'report' AND coalesce(l.only_task, a.task) = a.task
    WHERE l.role IN ('baseline', 'chosen', 'control')
),
took AS (
    SELECT t.run, t.model, t.task, t.method,
           coalesce(sum(u.seconds) FILTER (b.part = 'choose'), 0) AS seconds_to_choose,
           sum(u.seconds) FILTER (b.part = 'answer') AS seconds,
           max(u.peak) AS peak_memory_mb
    FROM totals t
    JOIN behind b ON b.run = t.run AND b.model = t.model AND b.method = t.method
     AND coalesce(b.only_task, t.task) = t.task
    JOIN (SELECT unit_id, sum(seconds) AS seconds, max(peak_memory_mb) AS peak
          FROM units GROUP BY unit_id) u ON u.unit_id = b.unit_id
    GROUP BY ALL
),
known AS (
    SELECT run, model, method, only_task, max(samples) AS samples
    FROM interventions JOIN _scope USING (unit_id, model)
    WHERE role <> 'grid' AND method <> 'random' GROUP BY ALL
)
SELECT t.run, t.model, t.task, t.method, n, prompts, queries, accuracy,
       CASE WHEN t.method = 'random_search' THEN drawn_share_interval(shares, o.sd, o.sets)
            ELSE share_interval(shares) END[1] AS accuracy_low,
       CASE WHEN t.method = 'random_search' THEN drawn_share_interval(shares, o.sd, o.sets)
            ELSE share_interval(shares) END[2] AS accuracy_high,
       copying_error, c.difference, c.interval[1] AS difference_low,
       c.interval[2] AS difference_high, c.p_value,
       CASE WHEN t.method <> 'random_search' THEN q.q_value END AS q_value,
       c.copying_difference, k.samples, r.searched, r.candidates, w.seconds_to_choose, w.seconds,
       w.peak_memory_mb
FROM totals t
LEFT JOIN own_draws o USING (run, model, task, method)
LEFT JOIN compared c
  ON c.run = t.run AND c.model = t.model AND c.task = t.task AND c.method = t.method
 AND c.role = t.role
LEFT JOIN corrected q ON q.run = t.run AND q.model = t.model AND q.p_value = c.p_value
LEFT JOIN known k ON k.run = t.run AND k.model = t.model AND k.method = t.method
 AND coalesce(k.only_task, t.task) = t.task
LEFT JOIN tried r ON r.run = t.run AND r.model = t.model AND r.method = t.method
 AND coalesce(r.only_task, t.task) = t.task
LEFT JOIN took w ON w.run = t.run AND w.model = t.model AND w.task = t.task
 AND w.method = t.method
ORDER BY t.run, t.model, t.task, t.role <> 'baseline', t.method
""",
    method="none for the untouched model; attribution or way to steer, as the recipe names it; "
    "random_search: random pruning with the same search; fine_tuning",
    accuracy_low="lower end of the 95% interval of accuracy (over queries and, of random_search, "
    "over the searches; null for a single search)",
    accuracy_high="upper end of the 95% interval of accuracy",
    difference="accuracy minus that of the untouched model on the same prompts, by the same engine",
    difference_low="lower end of the 95% interval of difference, as for accuracy",
    difference_high="upper end of the 95% interval of difference",
    p_value="two-sided: mid-p of a sign-flip test over queries; of random_search that of the "
    "interval",
    q_value="p_value after Benjamini-Hochberg; the family are all methods and tasks of a run and "
    "model, equal interventions once; null for random_search, which claims nothing",
    copying_difference="copying error minus that of the untouched model on the same prompts",
    samples="prompts that it was found or trained on, without those of the search; 0 for random "
    "rankings",
    searched="examples that the search decided by, null without a search",
    candidates="different interventions that the search tried (mean over draws)",
    seconds_to_choose="time of the units that scored, contrasted and searched, failed attempts "
    "included, whichever run did them; units that methods share count for each",
    seconds="likewise of the units that answered the reported prompts of this task; fine-tuning "
    "trains in them",
    peak_memory_mb="largest resident memory of the workers that did any of that in MB, since they "
    "started",
)

VIEWS = (METHODS,)
