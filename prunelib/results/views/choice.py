"""The views on the search: its grid, what it chose, and how far the choice can be trusted."""

from __future__ import annotations

from prunelib.results.views.base import view

GRID = view(
    "grid",
    "one line per cell of the search: accuracy on the searched examples against the baseline",
    "run model method control_seed task layer rate count intervention n accuracy accuracy_low "
    "accuracy_high copying_error baseline_accuracy difference",
    """
WITH cells AS MATERIALIZED (
    SELECT * FROM _answers
    WHERE purpose = 'search' AND repeat = 0 AND role IN ('grid', 'baseline')
),
by_query AS (
    SELECT c.run, c.model, c.method, c.control_seed, c.task, c.layer, c.rate, c."count",
           c.intervention, c.query, count(*) AS n, sum(c.correct) AS correct,
           sum(c.copied) AS copied, count(b.correct) AS pairs,
           sum(b.correct) AS baseline_correct,
           sum(c.correct) FILTER (b.correct IS NOT NULL) AS paired_correct
    FROM cells c
    LEFT JOIN cells b
      ON b.role = 'baseline' AND b.run = c.run AND b.model = c.model AND b.engine = c.engine
     AND b.task = c.task AND b.split = c.split AND b.shots = c.shots AND b.seed = c.seed
     AND b.example = c.example AND b.format = c.format
    WHERE c.role = 'grid'
    GROUP BY ALL
)
SELECT run, model, method, control_seed, task, layer, rate, "count", intervention,
       sum(n)::BIGINT AS n, sum(correct) / sum(n) AS accuracy,
       share_interval([share_sums(n, correct)])[1] AS accuracy_low,
       share_interval([share_sums(n, correct)])[2] AS accuracy_high,
       sum(copied) / sum(n) AS copying_error,
       sum(baseline_correct) / nullif(sum(pairs), 0) AS baseline_accuracy,
       (sum(paired_correct) - sum(baseline_correct)) / nullif(sum(pairs), 0) AS difference
FROM by_query
GROUP BY ALL
ORDER BY run, model, method, task, control_seed, layer, rate
""",
    baseline_accuracy="accuracy of the untouched model on the same prompts",
    difference="accuracy - baseline_accuracy, over the same prompts",
)

# 1.96 + 0.84 = 2.8 standard errors of a paired difference are found in 80% of cases by a two-sided
# test at 5%.
# A ranking is (run, model, method, control_seed, proxy, only_task); each has a grid and a choice.
CHOSEN = view(
    "chosen",
    "what the search chose for each model, how it did on the searched examples and among the "
    "random controls, and what speaks against it",
    "run model method control_seed proxy only_task layer rate count intervention search_n "
    "search_accuracy search_baseline_accuracy search_difference search_copying_error detectable "
    "tied random_sets random_sets_as_good random_sets_p random_searches random_searches_as_good "
    "random_searches_p warnings",
    """
WITH choices AS MATERIALIZED (
    SELECT * FROM _labels WHERE role = 'chosen'
),
searched AS MATERIALIZED (
    SELECT run, model, intervention, task AS proxy, engine, split, shots, seed, example, format,
           query, margin, correct, copied
    FROM _given WHERE purpose = 'search' AND repeat = 0
),
outcomes AS MATERIALIZED (
    SELECT s.run, s.model, s.intervention, s.proxy, count(*) AS n,
           count(DISTINCT s.query) AS queries, sum(s.correct) AS correct, sum(s.copied) AS copied,
           hash(list(s.margin ORDER BY s.shots, s.seed, s.example, s.format)) AS margins,
           avg(b.correct) AS baseline_accuracy, sum((s.correct <> b.correct)::INTEGER) AS discordant
    FROM searched s
    JOIN (SELECT DISTINCT run, model, intervention AS baseline FROM _labels
          WHERE role = 'baseline') USING (run, model)
    LEFT JOIN searched b
      ON b.intervention = baseline AND b.run = s.run AND b.model = s.model AND b.proxy = s.proxy
     AND b.engine = s.engine AND b.split = s.split AND b.shots = s.shots AND b.seed = s.seed
     AND b.example = s.example AND b.format = s.format
    GROUP BY s.run, s.model, s.intervention, s.proxy
),
-- The cells of each choice's grid, of those on all examples the most accurate first.
cells AS MATERIALIZED (
    SELECT c.run, c.model, c.method, c.control_seed, c.proxy, c.only_task,
           c.intervention AS choice, g.intervention, o.*
               EXCLUDE (run, model, intervention, proxy),
           row_number() OVER (
               PARTITION BY c.run, c.model, c.method, c.control_seed, c.proxy, c.only_task
               ORDER BY o.n DESC, o.correct DESC, o.discordant, g.intervention) AS place
    FROM choices c
    JOIN (SELECT DISTINCT run, model, method, control_seed, proxy, only_task, intervention
          FROM _labels WHERE role = 'grid') g
      ON g.run = c.run AND g.model = c.model AND g.method = c.method AND g.proxy = c.proxy
     AND g.control_seed IS NOT DISTINCT FROM c.control_seed
     AND g.only_task IS NOT DISTINCT FROM c.only_task
    JOIN outcomes o ON o.run = g.run AND o.model = g.model AND o.intervention = g.intervention
     AND o.proxy = g.proxy
),
ties AS (
    SELECT a.run, a.model, a.method, a.control_seed, a.proxy, a.only_task, count(*) AS tied
    FROM cells a
    JOIN cells b ON b.run = a.run AND b.model = a.model AND b.method = a.method
     AND b.proxy = a.proxy AND b.control_seed IS NOT DISTINCT FROM a.control_seed
     AND b.only_task IS NOT DISTINCT FROM a.only_task AND b.intervention <> a.intervention
     AND b.n = a.n AND b.correct = a.correct AND b.copied = a.copied AND b.margins = a.margins
    WHERE a.intervention = a.choice
    GROUP BY ALL
),
-- Mean accuracy of each task on the report split, and the controls of every choice.
reported AS MATERIALIZED (
    SELECT run, model, intervention, engine, task, avg(correct) AS accuracy
    FROM _given WHERE purpose = 'report' AND repeat = 0 GROUP BY ALL
),
rivals AS (
    SELECT DISTINCT run, model, method, choice, rate, only_task, 'set' AS kind, intervention AS
           rival, control_seed AS draw
    FROM _matched
    UNION ALL
    SELECT DISTINCT c.run, c.model, c.method, c.intervention, c.rate, c.only_task, 'search',
           r.intervention, r.control_seed
    FROM choices c
    JOIN _labels r ON r.run = c.run AND r.model = c.model AND r.role = 'control'
     AND r.method = 'random_search' AND r.only_task IS NOT DISTINCT FROM c.only_task
     AND c.proxy IS NOT NULL
),
standing AS (
    SELECT run, model, method, choice, rate, only_task,
           count(*) FILTER (kind = 'set') AS sets,
           count(*) FILTER (kind = 'set' AND ahead <= 0) AS sets_as_good,
           count(*) FILTER (kind = 'search') AS searches,
           count(*) FILTER (kind = 'search' AND ahead <= 0) AS searches_as_good
    FROM (
        SELECT v.run, v.model, v.method, v.choice, v.rate, v.only_task, v.kind, v.rival, v.draw,
               round(avg(a.accuracy - b.accuracy), 12) AS ahead
        FROM rivals v
        JOIN reported a ON a.run = v.run AND a.model = v.model AND a.intervention = v.choice
         AND a.task = coalesce(v.only_task, a.task)
        JOIN reported b ON b.run = v.run AND b.model = v.model AND b.intervention = v.rival
         AND b.engine = a.engine AND b.task = a.task
        GROUP BY ALL
    )
    GROUP BY ALL
),
known AS (
    SELECT c.run, c.model, c.method, c.control_seed, c.proxy, c.only_task, c.layer, c.rate,
           c."count", c.intervention, o.n AS search_n, o.correct / o.n AS search_accuracy,
           o.baseline_accuracy AS search_baseline_accuracy,
           o.correct / o.n - o.baseline_accuracy AS search_difference,
           o.copied / o.n AS search_copying_error,
           d.correct / d.n - d.baseline_accuracy AS gain,
           2.8 * sqrt((d.discordant + 1) / (d.n + 2) / d.queries) AS detectable,
           CASE WHEN c."count" > 0 THEN coalesce(t.tied, 0) END AS tied,
           coalesce(s.sets, 0) AS random_sets,
           coalesce(s.sets_as_good, 0) AS random_sets_as_good,
           coalesce(s.searches, 0) AS random_searches,
           coalesce(s.searches_as_good, 0) AS random_searches_as_good
    FROM choices c
    LEFT JOIN outcomes o ON o.run = c.run AND o.model = c.model AND o.proxy = c.proxy
     AND o.intervention = c.intervention
    LEFT JOIN cells d ON d.run = c.run AND d.model = c.model AND d.method = c.method
     AND d.proxy = c.proxy AND d.control_seed IS NOT DISTINCT FROM c.control_seed
     AND d.only_task IS NOT DISTINCT FROM c.only_task
     AND CASE WHEN c."count" > 0 THEN d.intervention = c.intervention ELSE d.place = 1 END
    LEFT JOIN ties t ON t.run = c.run AND t.model = c.model AND t.method = c.method
     AND t.proxy = c.proxy AND t.control_seed IS NOT DISTINCT FROM c.control_seed
     AND t.only_task IS NOT DISTINCT FROM c.only_task
    LEFT JOIN standing s ON s.run = c.run AND s.model = c.model AND s.method = c.method
     AND s.choice = c.intervention AND s.rate IS NOT DISTINCT FROM c.rate
     AND s.only_task IS NOT DISTINCT FROM c.only_task
)
SELECT run, model, method, control_seed, proxy, only_task, layer, rate, "count", intervention,
       search_n, search_accuracy, search_baseline_accuracy, search_difference,
       search_copying_error, detectable, tied, random_sets, random_sets_as_good,
       CASE WHEN random_sets > 0 THEN (1 + random_sets_as_good) / (1 + random_sets) END
           AS random_sets_p,
       random_searches, random_searches_as_good,
       CASE WHEN random_searches > 0 THEN (1 + random_searches_as_good) / (1 + random_searches) END
           AS random_searches_p,
       array_to_string(list_filter([
           CASE WHEN "count" = 0
                THEN 'nothing is switched off, as no cell beats the untouched model'
                WHEN search_difference <= 0 THEN 'no better than the untouched model in the search'
           END,
           CASE WHEN search_baseline_accuracy = 0 THEN 'the untouched model is at 0% on the proxy'
                WHEN search_baseline_accuracy = 1 THEN 'the untouched model is at 100% on the proxy'
           END,
           CASE WHEN gain > 0 AND gain < detectable
                THEN 'too few search examples to show so small a gain' END,
           CASE WHEN tied > 0 THEN 'other cells are equal in all that the rule looks at' END,
           CASE WHEN "count" > 0 AND random_sets_as_good > 0
                THEN 'some random sets of its layer and size are as good' END,
           CASE WHEN "count" > 0 AND random_searches_as_good > 0
                THEN 'some choices of random searches are as good' END
       ], lambda sentence: sentence IS NOT NULL), '; ') AS warnings
FROM known
ORDER BY run, model, method, proxy, only_task, control_seed
""",
    count="number of components that are off; 0: nothing is switched off",
    search_n="searched examples",
    search_accuracy="accuracy of the choice on the searched examples",
    search_baseline_accuracy="accuracy of the untouched model on the same examples",
    search_difference="search_accuracy - search_baseline_accuracy",
    search_copying_error="copying error of the choice on the searched examples",
    detectable="difference that as many examples show in 80% of cases (paired, two-sided test at "
    "5%, at the observed share of answers that differ from the untouched model's, plus one): of "
    "the choice, or of the most accurate cell if nothing is switched off",
    tied="other ablations of the grid with equal answers and margins, between which only the "
    "smallest rate and then a digest decided; null if nothing is switched off",
    random_sets="random sets of the choice's layer, site and size",
    random_sets_as_good="those whose accuracy on the report split (mean over common tasks) is at "
    "least that of the choice",
    random_sets_p="(1 + random_sets_as_good) / (1 + random_sets): how often the choice, were it "
    "one more random set, would stand as high",
    random_searches="choices of the random rankings that went through the same search",
    random_searches_as_good="those whose accuracy on the report split (mean over common tasks) is "
    "at least that of the choice",
    random_searches_p="(1 + random_searches_as_good) / (1 + random_searches)",
    warnings="what speaks against the choice, empty if nothing does",
)

VIEWS = (CHOSEN, GRID)
