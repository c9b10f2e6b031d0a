"""The views on attributions: how good their scores are, how alike, and what their choices do."""

from __future__ import annotations

from prunelib.results.views.base import view

SCORES = view(
    "scores",
    "one line per component that an attribution of a run scored: attributions with their run",
    "run model method objective proxy shots format seed site layer index score rank prompts "
    "queries standard_error nodes error_estimate",
    """
SELECT DISTINCT run, model, method, objective, proxy, shots, format, seed, site, layer, "index",
       score, "rank", prompts, queries, standard_error, nodes, error_estimate
FROM attributions JOIN _scope USING (unit_id, model)
""",
    method="attribution",
    proxy="task whose prompts were attributed",
    format="prompt format",
    seed="seed of the prompts",
    site="where the component sits, such as mlp_hidden",
    layer="layer, from 0",
    index="component within layer and site, from 0",
    score="its score",
    rank="place in the order in which the layer's components are switched off, 1 = first",
    prompts="prompts that the score is taken over",
    queries="different queries that they ask",
    standard_error="standard error of the score over queries, null where it is not known",
)

COMPLETENESS = view(
    "completeness",
    "how far the scores of each layer are from the change that they explain",
    "run model method objective proxy seed layer prompts nodes error_estimate gap_median gap_p95 "
    "gap_max",
    """
WITH gaps AS (
    SELECT run, model, method, objective, proxy, seed, layer, example, nodes, abs(gap) AS gap
    FROM completeness_gaps JOIN _scope USING (unit_id, model)
    QUALIFY row_number() OVER (
        PARTITION BY run, model, method, objective, proxy, seed, layer, example
        ORDER BY nodes DESC, unit_id) = 1
),
layers AS (
    SELECT run, model, method, objective, proxy, seed, layer,
           max(error_estimate) AS error_estimate
    FROM attributions JOIN _scope USING (unit_id, model)
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

SCORE_ERRORS = view(
    "score_errors",
    "how far the scores of each layer would move with other prompts: their standard error over "
    "queries, and how many of the components that are switched off first two halves of the "
    "queries have in common",
    "run model method objective proxy shots seed site layer prompts queries nodes error_estimate "
    "relative_error overlap spearman share count shared shared_by_chance",
    """
WITH scored AS (
    SELECT DISTINCT run, model, method, objective, proxy, shots, seed, site, layer, "index", score,
           prompts, queries, nodes, error_estimate, standard_error, overlap, first_half_rank,
           second_half_rank
    FROM attributions JOIN _scope USING (unit_id, model)
    WHERE standard_error IS NOT NULL
),
layers AS (
    SELECT run, model, method, objective, proxy, shots, seed, site, layer, prompts, queries,
           max(nodes) AS nodes, max(error_estimate) AS error_estimate, count(*) AS width,
           max(overlap) AS overlap,
           sqrt(sum(standard_error ** 2)) / nullif(sqrt(sum(score ** 2)), 0) AS relative_error,
           corr(first_half_rank, second_half_rank) AS spearman,
           list(greatest(first_half_rank, second_half_rank)) AS worse
    FROM scored GROUP BY ALL
),
cuts AS (
    SELECT *, greatest(1, round(width * share))::BIGINT AS "count"
    FROM layers CROSS JOIN (VALUES (0.01::DOUBLE), (0.05), (0.1)) shares(share)
)
SELECT run, model, method, objective, proxy, shots, seed, site, layer, prompts, queries, nodes,
       error_estimate, relative_error, overlap, spearman, share, "count",
       len(list_filter(worse, lambda r: r <= "count")) AS shared,
       "count" * "count" / width AS shared_by_chance
FROM cuts
ORDER BY ALL
""",
    layer="layer, from 0",
    proxy="task whose prompts were attributed",
    seed="seed of the prompts",
    site="where the components sit, such as mlp_hidden",
    prompts="prompts that the scores are means over",
    queries="different queries that they ask, the unit of independence",
    error_estimate="estimated relative error of the quadrature, which other prompts do not change",
    relative_error="standard errors of the layer's scores over queries, relative to the scores "
    "(both as root of the sum of squares); what is switched off is uncertain where it is not "
    "small. Null if all scores are 0",
    overlap="share of the components that the rates of the search switch off which two halves of "
    "the queries agree on, mean over rates and ten ways to halve; null where scores of single "
    "prompts are not kept",
    spearman="rank correlation of the scores of two halves of the queries",
    share="share of the layer's components that is switched off first",
    count="that many components",
    shared="of those that either half would switch off first, components in common",
    shared_by_chance="what random orders would share on average: count² / components",
)

RECALL = view(
    "recall",
    "how many planted components are among the first of their layer to be switched off, for "
    "attributions of the site where they sit",
    "run model method objective proxy seed layer planted found recall",
    """
WITH known AS (
    SELECT DISTINCT run, model, site, layer, "index" FROM planted JOIN _scope USING (unit_id, model)
),
size AS (SELECT run, model, site, layer, count(*) AS planted FROM known GROUP BY ALL),
scored AS (
    SELECT DISTINCT run, model, method, objective, proxy, seed, site, layer, "index", "rank"
    FROM attributions JOIN _scope USING (unit_id, model)
)
SELECT s.run, s.model, s.method, s.objective, s.proxy, s.seed, s.layer,
       any_value(z.planted) AS planted,
       count(*) FILTER (s."rank" <= z.planted) AS found,
       count(*) FILTER (s."rank" <= z.planted) / any_value(z.planted) AS recall
FROM scored s JOIN known USING (run, model, site, layer, "index")
JOIN size z USING (run, model, site, layer)
GROUP BY ALL
ORDER BY ALL
""",
    seed="seed of the prompts",
    planted="components that were planted in the layer (K)",
    found="planted components among the first K of the layer to be switched off",
    recall="found / planted (recall at K)",
)

OVERLAP = view(
    "overlap",
    "two attributions of the same layer (other methods, objectives, proxies, seeds or numbers of "
    "prompts): how many components both switch off first, and how alike all scores are ordered",
    "run model site layer method objective proxy shots seed prompts other_method other_objective "
    "other_proxy other_shots other_seed other_prompts spearman share count shared "
    "shared_by_chance jaccard",
    """
WITH scored AS (
    SELECT DISTINCT run, model, site, layer, "index", "rank", score, struct_pack(
        method := method, objective := objective, proxy := proxy, shots := shots, seed := seed,
        prompts := prompts) AS source
    FROM attributions JOIN _scope USING (unit_id, model)
),
ranked AS MATERIALIZED (
    SELECT *, dense_rank() OVER (PARTITION BY run, model ORDER BY source) AS id,
           -- Spearman's ranks: equal scores share the mean of their ranks
           rank() OVER (PARTITION BY run, model, site, layer, source ORDER BY score)
           + count(*) OVER (PARTITION BY run, model, site, layer, source, score) / 2 AS place
    FROM scored
),
sources AS (SELECT DISTINCT run, model, id, source FROM ranked),
pairs AS (
    SELECT run, model, site, layer, a.id AS id, b.id AS other_id, count(*) AS width,
           CASE WHEN min(a.score) < max(a.score) AND min(b.score) < max(b.score)
                THEN corr(a.place, b.place) END AS spearman,
           list(greatest(a."rank", b."rank")) AS worse
    FROM ranked a JOIN ranked b USING (run, model, site, layer, "index")
    WHERE a.id < b.id
    GROUP BY run, model, site, layer, a.id, b.id
),
cuts AS (
    SELECT *, greatest(1, round(width * share))::BIGINT AS "count"
    FROM pairs CROSS JOIN (VALUES (0.01::DOUBLE), (0.05), (0.1)) shares(share)
),
tops AS (
    SELECT *, len(list_filter(worse, lambda r: r <= "count")) AS shared FROM cuts
)
SELECT run, model, site, layer, a.source.method AS method, a.source.objective AS objective,
       a.source.proxy AS proxy, a.source.shots AS shots, a.source.seed AS seed,
       a.source.prompts AS prompts, b.source.method AS other_method,
       b.source.objective AS other_objective, b.source.proxy AS other_proxy,
       b.source.shots AS other_shots, b.source.seed AS other_seed,
       b.source.prompts AS other_prompts, spearman, share, "count", shared,
       "count" * "count" / width AS shared_by_chance, shared / (2 * "count" - shared) AS jaccard
FROM tops
JOIN sources a USING (run, model, id)
JOIN (SELECT run, model, id AS other_id, source FROM sources) b USING (run, model, other_id)
ORDER BY ALL
""",
    site="where the components sit, such as mlp_hidden",
    layer="layer, from 0",
    proxy="task whose prompts were attributed",
    shots="demonstrations per prompt",
    seed="seed of the prompts or of a random ranking",
    prompts="prompts that the scores are means over",
    other_method="method of the other attribution",
    other_objective="objective of the other attribution",
    other_proxy="proxy of the other attribution",
    other_shots="demonstrations per prompt of the other attribution",
    other_seed="seed of the other attribution",
    other_prompts="prompts of the other attribution",
    spearman="rank correlation of the scores of all components (Spearman), null if one is constant",
    share="share of the layer's components that count as an attribution's top",
    count="that many components: the top, which an attribution switches off first (the highest "
    "scores, or what its rank asks for)",
    shared="components in both tops",
    shared_by_chance="what random tops would share on average: count² / components",
    jaccard="shared / components in either top",
)

AGREEMENT = view(
    "agreement",
    "attribution on few prompts against the same on more of them, of which the few are a part: "
    "same objective, proxy, shots and seed",
    "run model site layer objective proxy shots seed method prompts other_method other_prompts "
    "spearman share count shared jaccard",
    """
WITH ordered AS (
    SELECT * FROM overlap WHERE prompts < other_prompts
    UNION ALL BY NAME
    SELECT * REPLACE (other_method AS method, method AS other_method,
                      other_prompts AS prompts, prompts AS other_prompts)
    FROM overlap WHERE prompts > other_prompts
)
SELECT run, model, site, layer, objective, proxy, shots, seed, method, prompts, other_method,
       other_prompts, spearman, share, "count", shared, jaccard
FROM ordered
WHERE objective IS NOT DISTINCT FROM other_objective AND proxy IS NOT DISTINCT FROM other_proxy
  AND shots IS NOT DISTINCT FROM other_shots AND seed IS NOT DISTINCT FROM other_seed
ORDER BY ALL
""",
    **{name: OVERLAP.columns[name] for name in (
        "site", "layer", "proxy", "shots", "seed", "other_method", "other_prompts", "spearman",
        "share", "count", "shared", "jaccard")},
    method="attribution with fewer prompts: recipes give the two different names",
    prompts="its prompts",
)

SCORERS = view(
    "scorers",
    "one line per attribution of a recipe: how well its scores find planted components, what "
    "its choice repairs, and what it cost",
    "run model method recall layer rate accuracy baseline_accuracy difference difference_low "
    "difference_high difference_to_random difference_to_random_low difference_to_random_high "
    "units seconds",
    """
WITH found AS (
    SELECT run, model, method, avg(recall) AS recall FROM recall GROUP BY ALL
),
spent AS (
    SELECT run, model, method, count(*) AS units,
           CASE WHEN count(took) = count(*) THEN sum(took) END AS seconds
    FROM (
        SELECT DISTINCT run, model, method, used_unit
        FROM attribution_units JOIN _scope USING (unit_id, model)
    ) LEFT JOIN (
        SELECT unit_id AS used_unit, arg_max(seconds, finished_at) AS took
        FROM units WHERE status = 'done' GROUP BY unit_id
    ) USING (used_unit)
    GROUP BY ALL
)
SELECT l.run, l.model, l.method, recall, l.layer, l.rate, l.accuracy,
       l.accuracy - l.difference AS baseline_accuracy, difference, difference_low,
       difference_high, difference_to_random, difference_to_random_low,
       difference_to_random_high, units, seconds
FROM leaderboard l
JOIN (SELECT DISTINCT run, model, method FROM _labels WHERE role = 'chosen')
    USING (run, model, method)
LEFT JOIN found USING (run, model, method)
LEFT JOIN spent USING (run, model, method)
ORDER BY l.run, l.model, l.method
""",
    recall="share of the planted components among the first K of their layer to be switched off, K "
    "of them being planted; mean over planted layers, proxies and seeds; null if none is known at "
    "the attributed site",
    layer="chosen layer, null if several",
    rate="chosen share of the layer's components, null if several",
    accuracy="share of right answers on the report split, mean over tasks",
    baseline_accuracy="accuracy of the untouched model on the same prompts",
    difference="accuracy - baseline_accuracy",
    difference_to_random="accuracy minus that of random components of the same layer, site and "
    "size (mean over their sets), where there are some",
    difference_to_random_low="lower end of its 95% interval (over queries and sets; null for a "
    "single set)",
    difference_to_random_high="upper end of its 95% interval",
    units="units of work that the scores of all its proxies and seeds are made of, choosing "
    "prompts included; what several attributions use counts for each of them; null if there "
    "are none",
    seconds="time of these units, whichever run did them; null if it is not known of every one",
)

SEEDS = view(
    "seeds",
    "mean and standard deviation over the seeds of an attribution (or of its random controls), per "
    "task of the report split",
    "run model method role matched_to task seeds accuracy accuracy_sd difference difference_sd",
    """
WITH answered AS MATERIALIZED (
    SELECT * FROM _lines
    WHERE purpose = 'report' AND repeat = 0 AND role IN ('baseline', 'chosen', 'control')
),
per_seed AS (
    SELECT a.run, a.model, a.method, a.role, a.matched_to, a.task, a.control_seed, a.intervention,
           avg(a.correct) AS accuracy, avg(a.correct - b.correct) AS difference
    FROM answered a
    JOIN answered b
      ON b.role = 'baseline' AND b.run = a.run AND b.model = a.model AND b.engine = a.engine
     AND b.task = a.task AND b.shots = a.shots AND b.seed = a.seed AND b.example = a.example
     AND b.format = a.format
    WHERE a.role <> 'baseline'
    GROUP BY ALL
)
SELECT run, model, method, role, matched_to, task, count(*) AS seeds, avg(accuracy) AS accuracy,
       stddev_samp(accuracy) AS accuracy_sd, avg(difference) AS difference,
       stddev_samp(difference) AS difference_sd
FROM per_seed
GROUP BY ALL
ORDER BY ALL
""",
    seeds="seeds of the attributed prompts, or of random rankings; each made its own ablation",
    accuracy="share of right answers, mean over seeds",
    accuracy_sd="standard deviation of accuracy over seeds (n - 1), null if there is one",
    difference="accuracy minus that of the untouched model on the same prompts, mean over seeds",
    difference_sd="standard deviation of difference over seeds (n - 1), null if there is one",
)

TRANSFER = view(
    "transfer",
    "what an ablation that was chosen on one task does to each evaluated task, that one "
    "included, at each number of shots of the report split",
    "run model method control_seed chosen_on task shots prompts queries accuracy "
    "baseline_accuracy difference difference_low difference_high",
    """
WITH given AS MATERIALIZED (
    SELECT * FROM _given WHERE purpose = 'report' AND repeat = 0
),
chosen AS (
    SELECT DISTINCT run, model, intervention, method, control_seed,
           coalesce(only_task, proxy) AS chosen_on
    FROM _labels WHERE role = 'chosen'
),
baseline AS (
    SELECT given.* FROM given JOIN _labels USING (run, model, intervention) WHERE role = 'baseline'
),
by_query AS (
    SELECT c.run, c.model, c.method, c.control_seed, c.chosen_on, a.task, a.shots, a.query,
           count(*) AS n, sum(a.correct) AS correct, sum(b.correct) AS baseline_correct,
           sum((a.correct > b.correct)::INTEGER) AS gained,
           sum((a.correct < b.correct)::INTEGER) AS lost,
           bool_and(a.intervention = b.intervention) AS same
    FROM chosen c JOIN given a USING (run, model, intervention)
    JOIN baseline b USING (run, model, engine, task, shots, seed, example, format)
    GROUP BY ALL
),
tested AS (
    SELECT run, model, method, control_seed, chosen_on, task, shots, sum(n)::BIGINT AS prompts,
           count(*) AS queries, sum(correct) / sum(n) AS accuracy,
           sum(baseline_correct) / sum(n) AS baseline_accuracy,
           (sum(gained) - sum(lost)) / sum(n) AS difference,
           CASE WHEN bool_and(same) THEN [0.0, 0.0]
                ELSE difference_interval([pair_sums(n, gained, lost)]) END AS interval
    FROM by_query GROUP BY ALL
)
SELECT run, model, method, control_seed, chosen_on, task, shots, prompts, queries, accuracy,
       baseline_accuracy, difference, interval[1] AS difference_low, interval[2] AS difference_high
FROM tested
ORDER BY ALL
""",
    chosen_on="task that the ablation was chosen on: that of which it is the own ablation, or the "
    "proxy of the search; lines with another task show transfer",
    baseline_accuracy="accuracy of the untouched model on the same prompts",
    difference="accuracy - baseline_accuracy",
)

VIEWS = (SCORES, COMPLETENESS, SCORE_ERRORS, RECALL, OVERLAP, AGREEMENT, SCORERS, SEEDS, TRANSFER)
