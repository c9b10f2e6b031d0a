"""The views beside the leaderboard: several attributions, seeds and tasks; what else was broken."""

from __future__ import annotations

from prunelib.results.views.base import view

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
        FROM attribution_units JOIN _scope USING (unit_id)
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
    difference_low="lower end of the 95% interval of difference (bootstrap over queries)",
    difference_high="upper end of the 95% interval of difference (bootstrap over queries)",
    difference_to_random="accuracy minus that of random components of the same layer, site and "
    "size (mean over their seeds), where there are some",
    difference_to_random_low="lower end of its 95% interval (bootstrap over queries)",
    difference_to_random_high="upper end of its 95% interval (bootstrap over queries)",
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
    WHERE split = 'report' AND repeat = 0 AND role IN ('baseline', 'chosen', 'control')
),
per_seed AS (
    SELECT a.run, a.model, a.method, a.role, a.matched_to, a.task, a.control_seed, a.ablation,
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
    "run model method control_seed chosen_on task shots n accuracy baseline_accuracy difference "
    "difference_low difference_high",
    """
WITH given AS MATERIALIZED (
    SELECT * FROM _given WHERE split = 'report' AND repeat = 0
),
chosen AS (
    SELECT DISTINCT run, model, ablation, method, control_seed,
           coalesce(only_task, proxy) AS chosen_on
    FROM _labels WHERE role = 'chosen'
),
baseline AS (
    SELECT given.* FROM given JOIN _labels USING (run, model, ablation) WHERE role = 'baseline'
),
pairs AS (
    SELECT c.run, c.model, c.method, c.control_seed, c.chosen_on, a.task, a.shots,
           count(*) AS n, avg(a.correct) AS accuracy, avg(b.correct) AS baseline_accuracy,
           histogram((a.correct - b.correct)::DOUBLE) AS gaps
    FROM chosen c JOIN given a USING (run, model, ablation)
    JOIN baseline b USING (run, model, engine, task, shots, seed, example, format)
    GROUP BY ALL
),
tested AS (SELECT *, histogram_bootstrap(gaps) AS interval FROM pairs)
SELECT run, model, method, control_seed, chosen_on, task, shots, n, accuracy, baseline_accuracy,
       accuracy - baseline_accuracy AS difference, interval[1] AS difference_low,
       interval[2] AS difference_high
FROM tested
ORDER BY ALL
""",
    chosen_on="task that the ablation was chosen on: that of which it is the own ablation, or the "
    "proxy of the search; lines with another task show transfer",
    baseline_accuracy="accuracy of the untouched model on the same prompts",
    difference="accuracy - baseline_accuracy",
    difference_low="lower end of the 95% interval of difference (bootstrap over prompts)",
    difference_high="upper end of the 95% interval of difference (bootstrap over prompts)",
)

# The perplexity of texts together is a ratio of sums, so what is resampled is its linearisation:
# each text's deviation from the whole, in units of the mean number of tokens.
CAPABILITY = view(
    "capability",
    "what else a model can do, before and after: perplexity of texts, and multiple choice",
    "run model method role matched_to source texts baseline_perplexity perplexity perplexity_ratio "
    "perplexity_ratio_low perplexity_ratio_high questions baseline_accuracy accuracy difference "
    "difference_low difference_high",
    """
WITH measured AS MATERIALIZED (
    SELECT DISTINCT run, model, ablation, source, text, nll, tokens
    FROM likelihoods JOIN _scope USING (unit_id)
),
labels AS (
    SELECT DISTINCT l.run, l.model, l.ablation, l.method, l.role,
           coalesce(s.matched_to, '') AS matched
    FROM _labels l
    LEFT JOIN _matched_sets s
      ON l.role = 'control' AND l.method = 'random' AND s.run = l.run AND s.model = l.model
     AND s.ablation = l.ablation
    WHERE l.role <> 'grid'
),
texts AS (
    SELECT run, model, method, role, matched, source, text, any_value(a.tokens) AS tokens,
           avg(a.nll) AS nll, avg(b.nll) AS baseline_nll
    FROM labels JOIN measured a USING (run, model, ablation)
    JOIN (SELECT measured.* FROM measured JOIN labels USING (run, model, ablation)
          WHERE role = 'baseline') b USING (run, model, source, text)
    GROUP BY ALL
),
totals AS (
    SELECT run, model, method, role, matched, source, sum(tokens) / count(*) AS mean_tokens,
           sum(nll - baseline_nll) / sum(tokens) AS gap
    FROM texts GROUP BY ALL
),
perplexities AS (
    SELECT run, model, method, role, matched, source, count(*) AS texts,
           exp(sum(baseline_nll) / sum(tokens)) AS baseline_perplexity,
           exp(sum(nll) / sum(tokens)) AS perplexity,
           histogram_bootstrap(histogram(round(
               gap + (nll - baseline_nll - gap * tokens) / mean_tokens, 12))) AS interval
    FROM texts JOIN totals USING (run, model, method, role, matched, source)
    GROUP BY ALL
),
answered AS MATERIALIZED (
    SELECT l.run, l.model, l.method, l.role, l.matched, a.engine, a.task, a.shots, a.seed,
           a.example, a.format, avg(a.correct) AS correct
    FROM labels l JOIN _given a USING (run, model, ablation)
    WHERE a.split = 'capability' AND l.role IN ('baseline', 'chosen', 'control')
    GROUP BY ALL
),
choices AS (
    SELECT a.run, a.model, a.method, a.role, a.matched, count(*) AS questions,
           avg(b.correct) AS baseline_accuracy, avg(a.correct) AS accuracy,
           histogram_bootstrap(histogram(round(a.correct - b.correct, 12))) AS interval
    FROM answered a
    JOIN answered b
      ON b.role = 'baseline' AND b.run = a.run AND b.model = a.model AND b.engine = a.engine
     AND b.task = a.task AND b.shots = a.shots AND b.seed = a.seed AND b.example = a.example
     AND b.format = a.format
    GROUP BY ALL
)
SELECT run, model, method, role, nullif(matched, '') AS matched_to, source, texts,
       baseline_perplexity, perplexity,
       perplexity / baseline_perplexity AS perplexity_ratio,
       exp(p.interval[1]) AS perplexity_ratio_low, exp(p.interval[2]) AS perplexity_ratio_high,
       questions, baseline_accuracy, accuracy, accuracy - baseline_accuracy AS difference,
       c.interval[1] AS difference_low, c.interval[2] AS difference_high
FROM perplexities p FULL JOIN choices c USING (run, model, method, role, matched)
ORDER BY run, model, role <> 'baseline', method, matched
""",
    source="prose, prompts (right answers after their prompts) or a file",
    texts="texts whose perplexity was measured",
    baseline_perplexity="perplexity of the texts to the untouched model; comparable between models "
    "of one tokenizer only",
    perplexity="the same under the ablation (geometric mean over several)",
    perplexity_ratio="perplexity / baseline_perplexity: above 1 is worse",
    perplexity_ratio_low="lower end of its 95% interval (paired bootstrap over texts)",
    perplexity_ratio_high="upper end of its 95% interval (paired bootstrap over texts)",
    questions="multiple-choice questions",
    baseline_accuracy="share of the questions that the untouched model answers rightly",
    accuracy="share of the questions that are answered rightly (mean over several ablations)",
    difference="accuracy - baseline_accuracy",
    difference_low="lower end of the 95% interval of difference (paired bootstrap over questions)",
    difference_high="upper end of the 95% interval of difference (paired bootstrap over questions)",
)
