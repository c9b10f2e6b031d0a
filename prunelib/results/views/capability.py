"""The view on what else a model can do: perplexity and multiple choice."""

from __future__ import annotations

from prunelib.results.views.base import view

# The perplexity of texts together is a ratio of sums, so the interval is of the mean of its
# linearisation: each text's deviation from the whole, in units of the mean number of tokens.
CAPABILITY = view(
    "capability",
    "what else a model can do, before and after: perplexity of texts, and multiple choice",
    "run model method role matched_to source texts baseline_perplexity perplexity perplexity_ratio "
    "perplexity_ratio_low perplexity_ratio_high questions baseline_accuracy accuracy difference "
    "difference_low difference_high",
    """
WITH measured AS MATERIALIZED (
    SELECT DISTINCT run, model, intervention, source, text, nll, tokens
    FROM likelihoods JOIN _scope USING (unit_id, model)
),
labels AS (
    FROM _set_labels WHERE role <> 'grid'
),
texts AS (
    SELECT run, model, method, role, matched, source, text, any_value(a.tokens) AS tokens,
           avg(a.nll) AS nll, avg(b.nll) AS baseline_nll
    FROM labels JOIN measured a USING (run, model, intervention)
    JOIN (SELECT measured.* FROM measured JOIN labels USING (run, model, intervention)
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
           mean_interval(any_value(gap), stddev_samp(
               (nll - baseline_nll - gap * tokens) / mean_tokens), count(*)) AS interval
    FROM texts JOIN totals USING (run, model, method, role, matched, source)
    GROUP BY ALL
),
answered AS MATERIALIZED (
    SELECT l.run, l.model, l.method, l.role, l.matched, a.intervention, a.engine, a.task, a.shots,
           a.seed, a.example, a.format, a.query, a.correct
    FROM labels l JOIN _given a USING (run, model, intervention)
    WHERE a.purpose = 'capability' AND l.role IN ('baseline', 'chosen', 'control')
),
by_query AS (
    SELECT a.run, a.model, a.method, a.role, a.matched, a.task, a.query, count(*) AS n,
           count(DISTINCT (a.engine, a.shots, a.seed, a.example, a.format)) AS questions,
           sum(b.correct) AS baseline_correct, sum(a.correct) AS correct,
           sum((a.correct > b.correct)::INTEGER) AS gained,
           sum((a.correct < b.correct)::INTEGER) AS lost,
           bool_and(a.intervention = b.intervention) AS same
    FROM answered a
    JOIN answered b
      ON b.role = 'baseline' AND b.run = a.run AND b.model = a.model AND b.engine = a.engine
     AND b.task = a.task AND b.shots = a.shots AND b.seed = a.seed AND b.example = a.example
     AND b.format = a.format
    GROUP BY ALL
),
choices AS (
    SELECT run, model, method, role, matched, sum(questions)::BIGINT AS questions,
           sum(baseline_correct) / sum(n) AS baseline_accuracy, sum(correct) / sum(n) AS accuracy,
           CASE WHEN bool_and(same) THEN [0.0, 0.0]
                ELSE difference_interval([pair_sums(n, gained, lost)]) END AS interval
    FROM by_query GROUP BY run, model, method, role, matched
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
    perplexity="the same under the intervention (geometric mean over several)",
    perplexity_ratio="perplexity / baseline_perplexity: above 1 is worse",
    perplexity_ratio_low="lower end of its 95% interval (Student's t over texts, of the logarithm; "
    "null for one text)",
    perplexity_ratio_high="upper end of its 95% interval",
    questions="multiple-choice questions",
    baseline_accuracy="share of the questions that the untouched model answers rightly",
    accuracy="share of the questions that are answered rightly (mean over several interventions)",
    difference="accuracy - baseline_accuracy",
)

VIEWS = (CAPABILITY,)
