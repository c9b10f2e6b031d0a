"""The views of in-context heads: what removing them does, what they read, which biases follow."""

from __future__ import annotations

from prunelib.results.views.base import PROMPT, view

# `part` is the label of a line's prompts, null for all of them.
IN_CONTEXT = view(
    "in_context",
    "accuracy on prompts with two new labels, as the model is and without in-context heads, "
    "against as many random heads on the same prompts",
    "run model engine task shots removed heads gold prompts queries accuracy accuracy_low "
    "accuracy_high difference difference_low difference_high random_sets difference_to_random "
    "difference_to_random_low difference_to_random_high p_value rank_p_value",
    f"""
WITH sets AS (
    SELECT DISTINCT run, model, intervention, "count", control_seed,
           map {{'baseline': 'none', 'in_context': 'both', 'in_context_first': 'first',
                 'in_context_second': 'second', 'in_context_random': 'random'}}[role] AS removed
    FROM _labels WHERE role IN ('baseline', 'in_context', 'in_context_first',
                                  'in_context_second', 'in_context_random')
),
answered AS MATERIALIZED (
    SELECT run, model, removed, control_seed, "count" AS heads, {PROMPT}, query, gold, correct,
           unnest([gold, NULL]) AS part
    FROM sets JOIN (SELECT * FROM _given WHERE purpose = 'in_context' AND repeat = 0)
        USING (run, model, intervention)
),
pairs AS (
    SELECT a.*, b.removed AS other, b.correct AS other_correct,
           coalesce(a.control_seed, b.control_seed) AS "set"
    FROM answered a JOIN answered b USING (run, model, {PROMPT})
    WHERE b.part IS NOT DISTINCT FROM a.part AND a.removed <> 'none'
      AND (b.removed = 'none' OR (b.removed = 'random' AND a.removed <> 'random'))
),
-- Random sets are draws: how far the means of each set are apart.
shares AS (
    SELECT run, model, engine, task, shots, removed, part, count(*) AS sets,
           stddev_samp(accuracy) AS sd, list(accuracy) AS accuracies
    FROM (
        SELECT run, model, engine, task, shots, removed, part, control_seed,
               avg(correct) AS accuracy
        FROM answered WHERE removed = 'random' GROUP BY ALL
    ) GROUP BY ALL
),
gaps AS (
    SELECT run, model, engine, task, shots, removed, other, part, count(*) AS sets,
           stddev_samp(gap) AS sd
    FROM (
        SELECT run, model, engine, task, shots, removed, other, part, "set",
               avg(correct - other_correct) AS gap
        FROM pairs WHERE 'random' IN (removed, other) GROUP BY ALL
    ) GROUP BY ALL
),
accuracies AS (
    SELECT run, model, engine, task, shots, removed, part, max(heads) AS heads,
           sum(prompts)::BIGINT AS prompts, count(*) AS queries,
           sum(correct) / sum(n) AS accuracy, [share_sums(n, correct)] AS sums
    FROM (
        SELECT run, model, engine, task, shots, removed, part, query, max(heads) AS heads,
               count(*) AS n, count(DISTINCT (seed, example, format)) AS prompts,
               sum(correct) AS correct
        FROM answered GROUP BY ALL
    ) GROUP BY ALL
),
differences AS (
    SELECT run, model, engine, task, shots, removed, other, part,
           (sum(gained) - sum(lost)) / sum(n) AS difference, [pair_sums(n, gained, lost)] AS sums
    FROM (
        SELECT run, model, engine, task, shots, removed, other, part, query, count(*) AS n,
               sum((correct > other_correct)::INTEGER) AS gained,
               sum((correct < other_correct)::INTEGER) AS lost
        FROM pairs GROUP BY ALL
    ) GROUP BY ALL
),
tested AS (
    SELECT d.*, g.sets,
           CASE WHEN g.sets IS NULL THEN difference_interval(d.sums)
                ELSE drawn_difference_interval(d.sums, g.sd, g.sets) END AS interval,
           drawn_p(d.sums, g.sd, g.sets) AS p_value
    FROM differences d LEFT JOIN gaps g
      ON g.run = d.run AND g.model = d.model AND g.engine = d.engine AND g.task = d.task
     AND g.shots = d.shots AND g.removed = d.removed AND g.other = d.other
     AND g.part IS NOT DISTINCT FROM d.part
),
found AS (
    SELECT a.*, CASE WHEN s.sets IS NULL THEN share_interval(a.sums)
                     ELSE drawn_share_interval(a.sums, s.sd, s.sets) END AS interval
    FROM accuracies a LEFT JOIN shares s
      ON s.run = a.run AND s.model = a.model AND s.engine = a.engine AND s.task = a.task
     AND s.shots = a.shots AND s.removed = a.removed AND s.part IS NOT DISTINCT FROM a.part
)
SELECT f.run, f.model, f.engine, f.task, f.shots, f.removed, f.heads, f.part AS gold, f.prompts,
       f.queries, f.accuracy, f.interval[1] AS accuracy_low, f.interval[2] AS accuracy_high,
       b.difference, b.interval[1] AS difference_low, b.interval[2] AS difference_high,
       coalesce(r.sets, s.sets) AS random_sets, r.difference AS difference_to_random,
       r.interval[1] AS difference_to_random_low, r.interval[2] AS difference_to_random_high,
       r.p_value,
       CASE WHEN f.removed = 'both' THEN (1 + len(list_filter(
           s.accuracies, lambda x: x <= f.accuracy + 1e-9))) / (1 + s.sets) END AS rank_p_value
FROM found f
LEFT JOIN tested b
  ON b.other = 'none' AND b.run = f.run AND b.model = f.model AND b.engine = f.engine
 AND b.task = f.task AND b.shots = f.shots AND b.removed = f.removed
 AND b.part IS NOT DISTINCT FROM f.part
LEFT JOIN tested r
  ON r.other = 'random' AND r.run = f.run AND r.model = f.model AND r.engine = f.engine
 AND r.task = f.task AND r.shots = f.shots AND r.removed = f.removed
 AND r.part IS NOT DISTINCT FROM f.part
LEFT JOIN shares s
  ON s.run = f.run AND s.model = f.model AND s.engine = f.engine AND s.task = f.task
 AND s.shots = f.shots AND s.part IS NOT DISTINCT FROM f.part AND f.removed IN ('both', 'random')
ORDER BY f.run, f.model, f.engine, f.task, f.shots,
         list_position(['none', 'both', 'first', 'second', 'random'], f.removed),
         f.part NULLS FIRST
""",  # noqa: S608
    removed="whose heads are off: none, both (those of both labels), first or second (those of one "
    "label), random (others, as many as both; all sets together)",
    heads="heads that are off",
    gold="prompts of which this label is the right answer, null for all prompts",
    accuracy="share of prompts after which the right label is more probable than the other",
    accuracy_low="lower end of the 95% interval of accuracy (over queries and, of random sets, "
    "over these; null for a single set)",
    accuracy_high="upper end of the same",
    difference="accuracy minus that of the untouched model on the same prompts",
    difference_low="lower end of the 95% interval of difference (likewise)",
    difference_high="upper end of the same",
    random_sets="random sets",
    difference_to_random="accuracy minus that without random heads on the same prompts",
    difference_to_random_low="lower end of its 95% interval (over queries and random sets, null "
    "for a single set)",
    difference_to_random_high="upper end of the same",
    p_value="test of difference_to_random by queries and random sets, two-sided; null for a "
    "single set",
    rank_p_value="where the heads of both labels stand among m random sets: (1 + r) / (1 + m), "
    "with r the sets without which the model does as badly or worse",
)

#: Scores of a head at the places of a label, with their standard errors.
_READ = ("causal", "log_probability_increase", "logit_minus", "logit_minus_reversed",
         "value_minus", "value_minus_reversed", "value_minus_change", "attention",
         "attention_reversed", "attention_change")

LABEL_READINGS = view(
    "label_readings",
    "one line per in-context head and label: how the head was found, and what it reads where the "
    "label stands, before and after the two labels change places; each with its standard error "
    "over queries",
    "run model task label layer index head_of prompts queries "
    + " ".join(f"{name} {name}_error" for name in _READ),
    f"""
WITH scores AS (
    SELECT DISTINCT run, model, task, layer, "index",
           regexp_extract(score, '^(.*)_(first|second)_label$', ['name', 'label']) AS parts,
           value, standard_error, prompts, queries
    FROM component_scores JOIN _scope USING (unit_id, model)
    WHERE score LIKE '%\\_label' ESCAPE '\\'
),
wide AS (
    SELECT run, model, task, parts.label AS label, layer, "index",
           max(prompts) AS prompts, max(queries) AS queries,
           {", ".join(f"max(value) FILTER (parts.name = '{name}') AS {name}, "
                      f"max(standard_error) FILTER (parts.name = '{name}') AS {name}_error"
                      for name in _READ)}
    FROM scores GROUP BY ALL
),
heads AS (
    SELECT DISTINCT run, model, replace(role, 'in_context_', '') AS head_of, layer, "index"
    FROM _components WHERE role IN ('in_context_first', 'in_context_second')
)
SELECT run, model, task, label, layer, "index", head_of, prompts, queries,
       {", ".join(f"{name}, {name}_error" for name in _READ)}
FROM wide JOIN heads USING (run, model, layer, "index")
ORDER BY run, model, task, head_of, layer, "index", label
""",  # noqa: S608
    label="first or second: the label that scores are of and where the head reads",
    layer="layer",
    index="head within the layer, from 0",
    head_of="whose head it is: of the first label or of the second",
    prompts="prompts behind the readings",
    queries="different queries that they ask",
    causal="accuracy without the head minus accuracy with it, where this label is right",
    log_probability_increase="how much the head's output raises the log-probability of this label "
    "where it is predicted, in nats; null if it never is",
    logit_minus="log-probability of the first label minus that of the second by what the head "
    "reads at this label's places (attention times value-output), sum over places, in nats",
    logit_minus_reversed="the same after the two labels changed places",
    value_minus="as logit_minus, without the attention: what the values say; null where no "
    "attention is paid",
    value_minus_reversed="the same after the two labels changed places",
    value_minus_change="value_minus_reversed / value_minus - 1",
    attention="attention from the last position to this label's places, sum over places",
    attention_reversed="the same after the two labels changed places",
    attention_change="attention_reversed / attention - 1, null where there was none",
    **{f"{name}_error": f"standard error of {name} over queries, null of one" for name in _READ},
)

#: Both biases: how columns begin, the measure, and which conditions it compares.
_BIASES = {"majority_bias": ("majority", "demonstrations <> 'order'"),
           "recency_bias": ("order", "demonstrations = 'order'")}

LABEL_BIAS = view(
    "label_bias",
    "majority-label and recency bias, as the model is and with each mitigation in its in-context "
    "heads; means over seeds. Both are never negative, so noise alone makes them positive: "
    "compare each with its floor",
    "run model engine task mitigation strength mode seeds prompts queries accuracy fewer_first "
    "fewer_second order_accuracy " + " ".join(
        f"{name} {name}_low {name}_high {name}_floor {name}_p_value {name}_change "
        f"{name}_change_p_value" for name in _BIASES) + " refused",
    f"""
WITH answers AS MATERIALIZED (
    SELECT DISTINCT run, model, engine, task, seed, mitigation, strength, mode, condition,
           demonstrations, example, query, correct::INTEGER AS correct, error
    FROM label_answers JOIN _scope USING (unit_id, model)
),
gathered AS (
    SELECT a.run, a.model, a.engine, a.task, a.mitigation, a.strength, a.mode,
           count(DISTINCT a.seed) AS seeds, count(DISTINCT (a.seed, a.example)) AS prompts,
           count(DISTINCT a.query) AS queries,
           avg(a.correct) FILTER (a.demonstrations = 'balanced') AS accuracy,
           avg(a.correct) FILTER (a.demonstrations = 'first') AS fewer_first,
           avg(a.correct) FILTER (a.demonstrations = 'second') AS fewer_second,
           avg(a.correct) FILTER (a.demonstrations = 'order') AS order_accuracy,
           {" ".join(
               f"list(a.query) FILTER (a.{of}) AS {name}_queries, "
               f"list(a.seed) FILTER (a.{of}) AS {name}_seeds, "
               f"list(a.condition) FILTER (a.{of}) AS {name}_conditions, "
               f"list(a.correct) FILTER (a.{of}) AS {name}_correct, "
               f"list(b.correct) FILTER (a.{of}) AS {name}_before,"
               for name, (_, of) in _BIASES.items())}
           max(a.error) AS refused
    FROM answers a
    LEFT JOIN (SELECT * FROM answers WHERE mitigation = 'none') b
        USING (run, model, engine, task, seed, condition, example)
    GROUP BY ALL
),
measured AS (
    SELECT *, {", ".join(
        f"condition_spread('{kind}', {name}_queries, {name}_seeds, {name}_conditions, "
        f"{name}_correct) AS {name}" for name, (kind, _) in _BIASES.items())}
    FROM gathered
)
SELECT m.run, m.model, m.engine, m.task, m.mitigation, m.strength, m.mode, m.seeds, m.prompts,
       m.queries, m.accuracy, m.fewer_first, m.fewer_second, m.order_accuracy,
       {" ".join(
           f"m.{name}[1] AS {name}, m.{name}[4] AS {name}_low, m.{name}[5] AS {name}_high, "
           f"m.{name}[2] AS {name}_floor, m.{name}[3] AS {name}_p_value, "
           f"CASE WHEN m.mitigation <> 'none' THEN m.{name}[1] - b.{name}[1] "
           f"END AS {name}_change, "
           f"CASE WHEN m.mitigation <> 'none' THEN condition_change('{kind}', m.{name}_queries, "
           f"m.{name}_seeds, m.{name}_conditions, m.{name}_before, m.{name}_correct) "
           f"END AS {name}_change_p_value,"
           for name, (kind, _) in _BIASES.items())}
       m.refused
FROM measured m
LEFT JOIN (SELECT * FROM measured WHERE mitigation = 'none') b USING (run, model, engine, task)
ORDER BY m.run, m.model, m.task, m.mitigation <> 'none', m.mitigation
""",  # noqa: S608
    mitigation="none, minority_boost or without_positions",
    strength="constant a_c of minority_boost, null for the others",
    mode="whether what heads say without positions does replace or add, null for the others",
    seeds="seeds of the prompts",
    prompts="prompts of each condition, those of all seeds together",
    queries="different queries that they ask, the unit of independence",
    accuracy="share of right answers with as many demonstrations of each label, in random orders",
    fewer_first="accuracy with one demonstration fewer of the first label",
    fewer_second="accuracy with one demonstration fewer of the second label",
    order_accuracy="accuracy with one order of the demonstrations for all prompts, mean over "
    "orders",
    majority_bias="mean of |accuracy - fewer_first| and |accuracy - fewer_second| (of each seed, "
    "then over seeds)",
    recency_bias="standard deviation of accuracy over these orders (of them, not n - 1; of each "
    "seed, then over seeds)",
    refused="why the model refuses the mitigation, else null",
    **{f"{name}{suffix}": meaning.format(name=name) for name in _BIASES for suffix, meaning in {
        "_low": "lower end of the 95% interval of {name} (bootstrap over queries)",
        "_high": "upper end of the same",
        "_floor": "mean of {name} if the answers to each query are permuted over the conditions: "
        "what noise alone gives",
        "_p_value": "share of these permutations that give as much as {name}",
        "_change": "{name} minus that without a mitigation",
        "_change_p_value": "permutation test of {name}_change: the answers to each query with and "
        "without the mitigation change places, two-sided",
    }.items()},
)

VIEWS = (IN_CONTEXT, LABEL_READINGS, LABEL_BIAS)
