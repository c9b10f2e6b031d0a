"""The views of in-context heads: what removing them does, what they read, which biases follow."""

from __future__ import annotations

from prunelib.results.views.base import view

# Of several random sets each prompt has the mean: answers to one prompt are not independent.
IN_CONTEXT = view(
    "in_context",
    "accuracy on prompts with two new labels, as the model is and without in-context heads, "
    "against as many random heads on the same prompts",
    "run model engine task shots removed heads gold n accuracy accuracy_low accuracy_high "
    "difference difference_low difference_high difference_to_random difference_to_random_low "
    "difference_to_random_high p_value",
    """
WITH sets AS (
    SELECT DISTINCT run, model, intervention, "count", control_seed,
           map {'baseline': 'none', 'in_context': 'both', 'in_context_first': 'first',
                'in_context_second': 'second', 'in_context_random': 'random'}[role] AS removed
    FROM _labels WHERE role IN ('baseline', 'in_context', 'in_context_first',
                                  'in_context_second', 'in_context_random')
),
prompts AS MATERIALIZED (
    SELECT run, model, engine, task, shots, removed, seed, example, format, gold,
           avg("count") AS heads, avg(correct) AS correct
    FROM sets JOIN (SELECT * FROM _given WHERE purpose = 'in_context' AND repeat = 0)
        USING (run, model, intervention)
    GROUP BY ALL
),
paired AS (
    SELECT p.*, CASE WHEN p.removed <> 'none' THEN round(p.correct - b.correct, 12) END AS gap,
           CASE WHEN p.removed NOT IN ('none', 'random')
                THEN round(p.correct - r.correct, 12) END AS random_gap
    FROM prompts p
    LEFT JOIN (SELECT * FROM prompts WHERE removed = 'none') b
        USING (run, model, engine, task, shots, seed, example, format)
    LEFT JOIN (SELECT * FROM prompts WHERE removed = 'random') r
        USING (run, model, engine, task, shots, seed, example, format)
),
grouped AS (
    SELECT run, model, engine, task, shots, removed, gold, max(heads) AS heads, count(*) AS n,
           avg(correct) AS accuracy, sum(correct) AS successes, avg(gap) AS difference,
           avg(random_gap) AS difference_to_random, histogram(gap) AS gaps,
           histogram(random_gap) AS random_gaps
    FROM paired
    GROUP BY GROUPING SETS ((run, model, engine, task, shots, removed, gold),
                            (run, model, engine, task, shots, removed))
),
tested AS (
    SELECT *, histogram_bootstrap(gaps) AS interval,
           histogram_bootstrap(random_gaps) AS random_interval
    FROM grouped
)
SELECT run, model, engine, task, shots, removed, heads, gold, n, accuracy,
       wilson_low(successes, n) AS accuracy_low, wilson_high(successes, n) AS accuracy_high,
       difference, interval[1] AS difference_low, interval[2] AS difference_high,
       difference_to_random, random_interval[1] AS difference_to_random_low,
       random_interval[2] AS difference_to_random_high,
       CASE WHEN random_gaps IS NOT NULL THEN histogram_flip(random_gaps) END AS p_value
FROM tested
ORDER BY run, model, engine, task, shots,
         list_position(['none', 'both', 'first', 'second', 'random'], removed),
         gold NULLS FIRST
""",
    removed="whose heads are off: none, both (those of both labels), first or second (those of one "
    "label), random (others, as many as both; mean over several sets)",
    heads="heads that are off",
    gold="prompts of which this label is the right answer, null for all prompts",
    n="prompts",
    accuracy="share of prompts after which the right label is more probable than the other",
    difference="accuracy minus that of the untouched model on the same prompts",
    difference_low="lower end of the 95% interval of difference (bootstrap over prompts)",
    difference_high="upper end of the 95% interval of difference (bootstrap over prompts)",
    difference_to_random="accuracy minus that without random heads on the same prompts",
    difference_to_random_low="lower end of its 95% interval (bootstrap over prompts)",
    difference_to_random_high="upper end of its 95% interval (bootstrap over prompts)",
    p_value="sign-flip permutation test of difference_to_random over prompts, two-sided",
)

LABEL_READINGS = view(
    "label_readings",
    "one line per in-context head and label: how the head was found, and what it reads where the "
    "label stands, before and after the two labels change places",
    "run model task label layer index head_of causal log_probability_increase logit_minus "
    "value_minus attention attention_reversed attention_change",
    """
WITH scores AS (
    SELECT DISTINCT run, model, task, layer, "index",
           regexp_extract(score, '^(.*)_(first|second)_label$', ['name', 'label']) AS parts, value
    FROM component_scores JOIN _scope USING (unit_id) WHERE score LIKE '%\\_label' ESCAPE '\\'
),
wide AS (
    SELECT run, model, task, parts.label AS label, layer, "index",
           max(value) FILTER (parts.name = 'causal') AS causal,
           max(value) FILTER (parts.name = 'log_probability_increase') AS log_probability_increase,
           max(value) FILTER (parts.name = 'logit_minus') AS logit_minus,
           max(value) FILTER (parts.name = 'value_minus') AS value_minus,
           max(value) FILTER (parts.name = 'attention') AS attention,
           max(value) FILTER (parts.name = 'attention_reversed') AS attention_reversed
    FROM scores GROUP BY ALL
),
heads AS (
    SELECT DISTINCT run, model, replace(role, 'in_context_', '') AS head_of, layer, "index"
    FROM _components WHERE role IN ('in_context_first', 'in_context_second')
)
SELECT run, model, task, label, layer, "index", head_of, causal, log_probability_increase,
       logit_minus, value_minus, attention, attention_reversed,
       attention_reversed / nullif(attention, 0) - 1 AS attention_change
FROM wide JOIN heads USING (run, model, layer, "index")
ORDER BY run, model, task, head_of, layer, "index", label
""",
    label="first or second: the label that scores are of and where the head reads",
    layer="layer",
    index="head within the layer, from 0",
    head_of="whose head it is: of the first label or of the second",
    causal="accuracy without the head minus accuracy with it, where this label is right",
    log_probability_increase="how much the head's output raises the log-probability of this label "
    "where it is predicted, in nats; null if it never is",
    logit_minus="log-probability of the first label minus that of the second by what the head "
    "reads at this label's places (attention times value-output), sum over places, in nats",
    value_minus="the same without the attention, null where there is none",
    attention="attention from the last position to this label's places, sum over places",
    attention_reversed="the same after the two labels changed places",
    attention_change="attention_reversed / attention - 1, null where there was none",
)

LABEL_BIAS = view(
    "label_bias",
    "majority-label and recency bias, as the model is and with each mitigation in its in-context "
    "heads; means over seeds",
    "run model engine task mitigation strength mode seeds accuracy fewer_first fewer_second "
    "majority_bias majority_bias_change order_accuracy recency_bias recency_bias_change refused",
    """
WITH measured AS (
    SELECT DISTINCT run, model, engine, task, seed, mitigation, strength, mode, demonstrations,
           "order", accuracy, error
    FROM label_biases JOIN _scope USING (unit_id)
),
per_seed AS (
    SELECT run, model, engine, task, seed, mitigation, strength, mode,
           max(accuracy) FILTER (demonstrations = 'balanced') AS accuracy,
           max(accuracy) FILTER (demonstrations = 'first') AS fewer_first,
           max(accuracy) FILTER (demonstrations = 'second') AS fewer_second,
           avg(accuracy) FILTER (demonstrations = 'order') AS order_accuracy,
           stddev_pop(accuracy) FILTER (demonstrations = 'order') AS recency_bias,
           max(error) AS refused
    FROM measured GROUP BY ALL
),
means AS (
    SELECT run, model, engine, task, mitigation, strength, mode, count(*) AS seeds,
           avg(accuracy) AS accuracy, avg(fewer_first) AS fewer_first,
           avg(fewer_second) AS fewer_second,
           avg((abs(accuracy - fewer_first) + abs(accuracy - fewer_second)) / 2) AS majority_bias,
           avg(order_accuracy) AS order_accuracy, avg(recency_bias) AS recency_bias,
           max(refused) AS refused
    FROM per_seed GROUP BY ALL
)
SELECT m.run, m.model, m.engine, m.task, m.mitigation, m.strength, m.mode, m.seeds, m.accuracy,
       m.fewer_first, m.fewer_second, m.majority_bias,
       CASE WHEN m.mitigation <> 'none' THEN m.majority_bias - b.majority_bias
       END AS majority_bias_change,
       m.order_accuracy, m.recency_bias,
       CASE WHEN m.mitigation <> 'none' THEN m.recency_bias - b.recency_bias
       END AS recency_bias_change,
       m.refused
FROM means m
LEFT JOIN (SELECT * FROM means WHERE mitigation = 'none') b USING (run, model, engine, task)
ORDER BY m.run, m.model, m.task, m.mitigation <> 'none', m.mitigation
""",
    mitigation="none, minority_boost or without_positions",
    strength="constant a_c of minority_boost, null for the others",
    mode="whether what heads say without positions does replace or add, null for the others",
    seeds="seeds of the prompts",
    accuracy="share of right answers with as many demonstrations of each label, in random orders",
    fewer_first="accuracy with one demonstration fewer of the first label",
    fewer_second="accuracy with one demonstration fewer of the second label",
    majority_bias="mean of |accuracy - fewer_first| and |accuracy - fewer_second|",
    majority_bias_change="majority_bias minus that without a mitigation",
    order_accuracy="accuracy with one order of the demonstrations for all prompts, mean over "
    "orders",
    recency_bias="standard deviation of accuracy over these orders (of them, not n - 1)",
    recency_bias_change="recency_bias minus that without a mitigation",
    refused="why the model refuses the mitigation, else null",
)

VIEWS = (IN_CONTEXT, LABEL_READINGS, LABEL_BIAS)
