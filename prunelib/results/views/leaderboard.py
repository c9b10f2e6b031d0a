"""The view that compares methods over all tasks."""

from __future__ import annotations

from prunelib.results.views.base import view

# A line is (run, model, method, role, matched). Answers are added up per query, then per task; the
# intervals are of the plain mean over tasks. Of several random sets (a line's own, or those that a
# choice is compared with) each is a draw: `control_seed`, or `set`, tells them apart.
LEADERBOARD = view(
    "leaderboard",
    "one line per method, and per set of random controls: means over the tasks of the report "
    "split; intervals and tests over queries (and over random sets), tasks taken as given",
    "run model method matched_to layer rate interventions tasks n prompts queries missing_cells "
    "accuracy accuracy_low accuracy_high copying_error copying_error_low copying_error_high "
    "difference difference_low difference_high p_value tasks_better tasks_worse task_sd "
    "difference_new_tasks_low difference_new_tasks_high difference_to_random "
    "difference_to_random_low difference_to_random_high random_rank random_sets random_p "
    "difference_to_random_search difference_to_random_search_low difference_to_random_search_high "
    "random_search_rank random_searches random_search_p",
    """
WITH answered AS MATERIALIZED (
    SELECT *, coalesce(matched_to, '') AS matched,
           role = 'control' AND method IN ('random', 'random_search') AS drawn
    FROM _line_cells
    WHERE purpose = 'report' AND repeat = 0 AND role IN ('baseline', 'chosen', 'control')
),
methods AS (
    SELECT run, model, method, role, matched, bool_or(drawn) AS drawn,
           count(DISTINCT intervention) AS interventions,
           CASE WHEN count(DISTINCT layer) = 1 THEN any_value(layer) END AS layer,
           CASE WHEN count(DISTINCT rate) = 1 THEN any_value(rate) END AS rate,
           count(DISTINCT (task, shots, seed, format)) AS cells
    FROM answered GROUP BY run, model, method, role, matched
),
per_task AS (
    SELECT * EXCLUDE (sums), unnest(sums)
    FROM (
        SELECT run, model, method, role, matched, task, tally(list(cell)) AS sums
        FROM answered GROUP BY ALL
    )
),
own_sets AS (
    SELECT run, model, method, role, matched, count(*) AS sets, stddev_samp(accuracy) AS sd,
           stddev_samp(copying_error) AS copying_sd
    FROM (
        SELECT run, model, method, role, matched, control_seed, avg(accuracy) AS accuracy,
               avg(copying_error) AS copying_error
        FROM (
            SELECT run, model, method, role, matched, control_seed, task,
                   sum(found.correct) / sum(found.n) AS accuracy,
                   sum(found.copied) / sum(found.n) AS copying_error
            FROM (SELECT *, answers(cell) AS found FROM answered WHERE drawn) GROUP BY ALL
        ) GROUP BY ALL
    ) GROUP BY ALL
),
own AS (
    SELECT run, model, method, role, matched, count(*) AS tasks, sum(n)::BIGINT AS n,
           sum(prompts)::BIGINT AS prompts, sum(queries)::BIGINT AS queries,
           avg(correct / n) AS accuracy, avg(copied / n) AS copying_error, list(rights) AS rights,
           list(copies) AS copies
    FROM per_task GROUP BY ALL
),
pairs AS MATERIALIZED (
    SELECT *, coalesce(matched_to, '') AS matched,
           role = 'control' AND method IN ('random', 'random_search') AS drawn
    FROM _pairs
),
-- Draws of a comparison: those of the reference, or of the line itself against the baseline.
sets AS (
    SELECT run, model, method, role, matched, reference, count(*) AS sets,
           stddev_samp(difference) AS sd,
           sum((difference <= 1e-12)::INTEGER)::BIGINT AS as_good
    FROM (
        SELECT run, model, method, role, matched, reference, draw, avg(difference) AS difference
        FROM (
            SELECT run, model, method, role, matched, reference, task,
                   CASE WHEN drawn THEN control_seed ELSE "set" END AS draw,
                   sum(gaps.gained - gaps.lost) / sum(gaps.n) AS difference
            FROM pairs WHERE drawn OR reference <> 'baseline' GROUP BY ALL
        ) GROUP BY ALL
    ) GROUP BY ALL
),
paired_tasks AS (
    SELECT * EXCLUDE (sums), unnest(sums)
    FROM (
        SELECT run, model, method, role, matched, reference, task,
               bool_and(intervention = other) AS same,
               tally_pairs(list(cell), list(other_cell)) AS sums
        FROM pairs GROUP BY ALL
    )
),
paired AS (
    SELECT run, model, method, role, matched, reference, bool_and(same) AS same,
           avg((gained - lost) / n) AS difference, stddev_samp((gained - lost) / n) AS task_sd,
           count(*) AS tasks, count(*) FILTER (gained > lost) AS tasks_better,
           count(*) FILTER (gained < lost) AS tasks_worse, list(pairs) AS pairs,
           list(flips) AS flips
    FROM paired_tasks GROUP BY ALL
),
compared AS (
    SELECT p.*, s.sets, 1 + s.as_good AS place, (1 + s.as_good) / (1 + s.sets) AS rank_p,
           CASE WHEN s.sets IS NULL THEN sign_flip(flips) ELSE drawn_p(pairs, s.sd, s.sets) END
               AS p_value,
           CASE WHEN same THEN [0.0, 0.0]  -- nothing is switched off: no estimate
                WHEN s.sets IS NULL THEN difference_interval(pairs)
                ELSE drawn_difference_interval(pairs, s.sd, s.sets) END AS interval,
           CASE WHEN s.sets IS NULL AND NOT same THEN mean_interval(difference, task_sd, tasks) END
               AS new_tasks
    FROM paired p LEFT JOIN sets s USING (run, model, method, role, matched, reference)
),
shares AS (
    SELECT o.*, m.* EXCLUDE (run, model, method, role, matched),
           CASE WHEN drawn THEN drawn_share_interval(rights, s.sd, s.sets)
                ELSE share_interval(rights) END AS accuracy_interval,
           CASE WHEN drawn THEN drawn_share_interval(copies, s.copying_sd, s.sets)
                ELSE share_interval(copies) END AS copying_interval
    FROM own o JOIN methods m USING (run, model, method, role, matched)
    LEFT JOIN own_sets s USING (run, model, method, role, matched)
)
SELECT l.run, l.model, l.method, nullif(l.matched, '') AS matched_to, layer, rate, interventions,
       l.tasks, n, prompts, queries,
       greatest(0, max(cells) FILTER (l.role = 'baseline') OVER (PARTITION BY l.run, l.model)
                   - cells) AS missing_cells,
       accuracy, accuracy_interval[1] AS accuracy_low, accuracy_interval[2] AS accuracy_high,
       copying_error, copying_interval[1] AS copying_error_low,
       copying_interval[2] AS copying_error_high,
       b.difference, b.interval[1] AS difference_low, b.interval[2] AS difference_high, b.p_value,
       b.tasks_better, b.tasks_worse, b.task_sd,
       CASE WHEN b.new_tasks IS NOT NULL THEN greatest(-1, b.new_tasks[1]) END
           AS difference_new_tasks_low,
       CASE WHEN b.new_tasks IS NOT NULL THEN least(1, b.new_tasks[2]) END
           AS difference_new_tasks_high,
       r.difference AS difference_to_random, r.interval[1] AS difference_to_random_low,
       r.interval[2] AS difference_to_random_high, r.place AS random_rank, r.sets AS random_sets,
       r.rank_p AS random_p,
       s.difference AS difference_to_random_search,
       s.interval[1] AS difference_to_random_search_low,
       s.interval[2] AS difference_to_random_search_high, s.place AS random_search_rank,
       s.sets AS random_searches, s.rank_p AS random_search_p
FROM shares l
LEFT JOIN compared b
  ON b.run = l.run AND b.model = l.model AND b.method = l.method AND b.role = l.role
 AND b.matched = l.matched AND b.reference = 'baseline'
LEFT JOIN compared r
  ON r.run = l.run AND r.model = l.model AND r.method = l.method AND r.role = l.role
 AND r.matched = l.matched AND r.reference = 'random'
LEFT JOIN compared s
  ON s.run = l.run AND s.model = l.model AND s.method = l.method AND s.role = l.role
 AND s.matched = l.matched AND s.reference = 'random_search'
ORDER BY l.run, l.model, l.role <> 'baseline', l.method, l.matched
""",
    interventions="different interventions, such as the seeds of a control",
    tasks="tasks",
    missing_cells="cells (task, shots, seed, format) that the baseline has answers in and this has "
    "not; differences are over the common cells",
    accuracy="share of right answers, mean over tasks",
    accuracy_low="lower end of the 95% interval of accuracy (over queries and, of random controls, "
    "over their sets; null for a single set)",
    accuracy_high="upper end of the 95% interval of accuracy",
    copying_error="copying error, mean over tasks",
    copying_error_low="lower end of the 95% interval of copying_error, as for accuracy",
    copying_error_high="upper end of the 95% interval of copying_error",
    difference="accuracy minus that of the baseline on the same prompts, mean over tasks",
    difference_low="lower end of the 95% interval of difference, as for accuracy",
    difference_high="upper end of the 95% interval of difference",
    p_value="two-sided: of difference, mid-p of a sign-flip test over queries; of random controls "
    "that of the interval, null for a single set",
    tasks_better="tasks where difference is above 0",
    tasks_worse="tasks where difference is below 0",
    task_sd="standard deviation of difference over tasks (n - 1), null for one task",
    difference_new_tasks_low="lower end of the 95% interval of difference for tasks that these are "
    "a random sample of (Student's t over tasks); null for one task and for random controls",
    difference_new_tasks_high="upper end of that interval",
    difference_to_random="of what was chosen: accuracy minus that of random components of the same "
    "layer, site and size (mean over their sets)",
    difference_to_random_low="lower end of its 95% interval, over queries and sets; null for a "
    "single set",
    difference_to_random_high="upper end of that interval",
    random_rank="place of the choice among itself and its random sets, 1 for the best; a set that "
    "does as well comes first",
    random_sets="its random sets",
    random_p="random_rank / (random_sets + 1): chance of such a place if the choice were one more "
    "random set",
    difference_to_random_search="of what was chosen: accuracy minus that of what random rankings "
    "came to by the same search (mean over them)",
    difference_to_random_search_low="lower end of its 95% interval, over queries and searches; "
    "null for a single search",
    difference_to_random_search_high="upper end of that interval",
    random_search_rank="place of the choice among itself and the random searches' choices, 1 for "
    "the best",
    random_searches="random searches",
    random_search_p="random_search_rank / (random_searches + 1)",
)

VIEWS = (LEADERBOARD,)
