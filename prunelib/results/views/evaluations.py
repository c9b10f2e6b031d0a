"""The views: every aggregate that is reported, as SQL over the tables.

Views whose name starts with an underscore are building blocks of the others. Scope: a row
belongs to a run if its unit does (table ``run_units``), and what two units of a run both wrote
counts once. Reported numbers come from the split ``report`` and the first evaluation (repeat 0)
only; an answer that is missing because of an error counts as wrong.
"""

from __future__ import annotations

from prunelib.results.views.attribution import AGREEMENT, OVERLAP
from prunelib.results.views.base import View
from prunelib.results.views.base import view as _view
from prunelib.results.views.capability import CAPABILITY, SCORERS, SEEDS, TRANSFER
from prunelib.results.views.head_importance import (
    IMPORTANCE,
    IMPORTANCE_AGREEMENT,
    REMOVAL_CURVES,
    REMOVAL_MEANS,
    REMOVAL_PAIRS,
    RETENTION,
)
from prunelib.results.views.in_context_heads import IN_CONTEXT, LABEL_BIAS, LABEL_READINGS
from prunelib.results.views.leaderboard import COMPARISONS, LEADERBOARD
from prunelib.results.views.runs import (
    COMPLETENESS,
    COSTS,
    FAILED_UNITS,
    RECALL,
    TASK_VECTOR_ACCURACY,
)

_SCOPE = _view(
    "_scope",
    "units of each run, each once",
    "run unit_id",
    "SELECT DISTINCT run, unit_id FROM run_units",
)

_LABELS = _view(
    "_labels",
    "where each ablation of a run comes from; equal sets of several origins have several lines",
    "run model ablation method role site layer rate count control_seed proxy only_task",
    """
SELECT DISTINCT run, model, ablation, method, role, site, layer, rate, "count",
       seed AS control_seed, proxy, only_task
FROM ablations JOIN _scope USING (unit_id)
""",
)

# Every choice has controls of its own; choices of the same cell share them.
_MATCHED = _view(
    "_matched",
    "the random controls of each choice: same layer, site and size, reported on the same tasks",
    "run model method choice rate only_task ablation control_seed",
    """
SELECT DISTINCT c.run, c.model, c.method, c.ablation AS choice, c.rate, c.only_task, r.ablation,
       r.control_seed
FROM _labels c
JOIN _labels r
  ON r.run = c.run AND r.model = c.model AND r.site = c.site AND r.layer = c.layer
 AND r.rate = c.rate AND r.only_task IS NOT DISTINCT FROM c.only_task
WHERE c.role = 'chosen' AND r.role = 'control' AND r.method = 'random'
""",
    method="attribution that chose",
    choice="digest of the chosen ablation",
    ablation="digest of a random control of it",
)

_MATCHED_SETS = _view(
    "_matched_sets",
    "the random controls of each attribution; attributions with the same ones have them together",
    "run model matched_to rate only_task ablation control_seed",
    """
WITH sets AS (
    SELECT run, model, method, list(control ORDER BY control) AS controls
    FROM (
        SELECT DISTINCT run, model, method, struct_pack(
            rate := rate, only_task := only_task, ablation := ablation,
            control_seed := control_seed) AS control
        FROM _matched
    )
    GROUP BY run, model, method
)
SELECT run, model, matched_to, control.rate AS rate, control.only_task AS only_task,
       control.ablation AS ablation, control.control_seed AS control_seed
FROM (
    SELECT run, model, string_agg(method, ', ' ORDER BY method) AS matched_to,
           unnest(controls) AS control
    FROM sets GROUP BY run, model, controls
)
""",
)

_ANSWER: dict[str, str] = {
    "seed": "seed of queries and demonstrations",
    "example": "example within task, split, shots and seed",
    "repeat": "0, or 1 for the baseline's second evaluation",
    "format": "prompt format",
    "gold": "right answer",
    "prediction": "what the model answered",
    "answers": "answers of the demonstrations",
    "copied_position": "demonstration that was copied, from 0",
    "correct": "1 if right",
    "copied": "1 if wrong and equal to a demonstration's answer",
    "failed": "1 if there is no answer because of an error",
}

_GIVEN = _view(
    "_given",
    "predictions of each run, each once; a missing answer is wrong",
    "run model engine ablation task split shots seed example repeat format gold prediction "
    "answers copied_position correct copied failed",
    """
SELECT run, model, engine, ablation, task, split, shots, seed, example, repeat, format, gold,
       prediction, answers, copied_position, (correct AND error IS NULL)::INTEGER AS correct,
       (copied AND error IS NULL)::INTEGER AS copied, (error IS NOT NULL)::INTEGER AS failed
FROM predictions JOIN _scope USING (unit_id)
QUALIFY row_number() OVER (
    PARTITION BY run, model, engine, ablation, task, split, shots, seed, example, repeat, format
    ORDER BY unit_id) = 1
""",
    **_ANSWER,
)

_ANSWERS = _view(
    "_answers",
    "predictions of each run, each once, under the label that counts in their split",
    "run model engine ablation method role layer rate count control_seed task split shots seed "
    "example repeat format gold prediction answers copied_position correct copied failed",
    """
SELECT p.run, p.model, p.engine, p.ablation, l.method, l.role, l.layer, l.rate, l."count",
       l.control_seed, p.task, p.split, p.shots, p.seed, p.example, p.repeat, p.format,
       p.gold, p.prediction, p.answers, p.copied_position, p.correct, p.copied, p.failed
FROM _given p
LEFT JOIN (
    -- One line per label, whatever number of proxies and tasks it has: answers count once.
    SELECT run, model, ablation, method, role, layer, rate, "count", control_seed,
           list(proxy) AS proxies, list(only_task) AS tasks,
           bool_or(only_task IS NULL) AS everywhere
    FROM _labels GROUP BY ALL
) l
  ON l.run = p.run AND l.model = p.model AND l.ablation = p.ablation
 AND (l.role = 'baseline'
      OR (l.role = 'grid' AND p.split IN ('attribute', 'search')
          AND list_contains(l.proxies, p.task))
      OR (l.role IN ('chosen', 'control')
          AND (p.split = 'report' AND (l.everywhere OR list_contains(l.tasks, p.task))
               OR p.split = 'capability')))
""",
    **_ANSWER,
)

_LINES = _view(
    "_lines",
    "as _answers, but those of a random control once for each set of attributions it is matched to",
    "run model engine ablation method role matched_to layer rate count control_seed task split "
    "shots seed example repeat format gold prediction answers copied_position correct copied "
    "failed",
    """
SELECT a.run, a.model, a.engine, a.ablation, a.method, a.role, s.matched_to, a.layer, a.rate,
       a."count", a.control_seed, a.task, a.split, a.shots, a.seed, a.example, a.repeat, a.format,
       a.gold, a.prediction, a.answers, a.copied_position, a.correct, a.copied, a.failed
FROM _answers a
LEFT JOIN (
    SELECT run, model, matched_to, rate, ablation, control_seed, list(only_task) AS tasks,
           bool_or(only_task IS NULL) AS everywhere
    FROM _matched_sets GROUP BY ALL
) s
  ON a.role = 'control' AND a.method = 'random' AND s.run = a.run AND s.model = a.model
 AND s.ablation = a.ablation AND s.rate = a.rate AND s.control_seed = a.control_seed
 AND (s.everywhere OR list_contains(s.tasks, a.task) OR a.split = 'capability')
""",
    **_ANSWER,
)

_EVALUATIONS = _view(
    "evaluations",
    "accuracy and copying error of each ablation on each task, split and number of shots",
    "run model ablation method role layer rate control_seed task split shots n accuracy "
    "accuracy_low accuracy_high copying_error errors engine",
    """
SELECT run, model, ablation, method, role, layer, rate, control_seed, task, split, shots,
       count(*) AS n, avg(correct) AS accuracy,
       wilson_low(sum(correct), count(*)) AS accuracy_low,
       wilson_high(sum(correct), count(*)) AS accuracy_high,
       avg(copied) AS copying_error, sum(failed)::BIGINT AS errors, engine
FROM _answers WHERE repeat = 0 AND role IS NOT NULL
GROUP BY ALL
ORDER BY ALL
""",
    errors="answers that are missing because of an error; they count as wrong",
)

_GRID = _view(
    "grid",
    "one line per cell of the search: accuracy on the search split against the baseline",
    "run model method control_seed task layer rate count ablation n accuracy accuracy_low "
    "accuracy_high copying_error baseline_accuracy difference",
    """
WITH cells AS MATERIALIZED (
    SELECT * FROM _answers
    WHERE split IN ('attribute', 'search') AND repeat = 0 AND role IN ('grid', 'baseline')
)
SELECT c.run, c.model, c.method, c.control_seed, c.task, c.layer, c.rate, c."count",
       c.ablation, count(*) AS n, avg(c.correct) AS accuracy,
       wilson_low(sum(c.correct), count(*)) AS accuracy_low,
       wilson_high(sum(c.correct), count(*)) AS accuracy_high,
       avg(c.copied) AS copying_error, avg(b.correct) AS baseline_accuracy,
       avg(c.correct - b.correct) AS difference
FROM cells c
LEFT JOIN cells b
  ON b.role = 'baseline' AND b.run = c.run AND b.model = c.model AND b.engine = c.engine
 AND b.task = c.task AND b.split = c.split AND b.shots = c.shots AND b.seed = c.seed
 AND b.example = c.example AND b.format = c.format
WHERE c.role = 'grid'
GROUP BY ALL
ORDER BY c.run, c.model, c.method, c.task, c.control_seed, c.layer, c.rate
""",
    baseline_accuracy="accuracy of the untouched model on the same prompts",
    difference="accuracy - baseline_accuracy, over the same prompts",
)

_CHOSEN = _view(
    "chosen",
    "the ablation that the search chose for each model, and how it did on the search split",
    "run model method control_seed proxy layer rate count ablation search_accuracy "
    "search_baseline_accuracy search_copying_error",
    """
WITH searched AS MATERIALIZED (
    SELECT * FROM _given WHERE split IN ('attribute', 'search') AND repeat = 0
),
search AS (
    SELECT s.run, s.model, s.ablation, s.task AS proxy, avg(s.correct) AS accuracy,
           avg(b.correct) AS baseline_accuracy, avg(s.copied) AS copying_error
    FROM searched s
    JOIN (SELECT run, model, ablation AS baseline FROM _labels WHERE role = 'baseline')
        USING (run, model)
    LEFT JOIN searched b
      ON b.ablation = baseline AND b.run = s.run AND b.model = s.model AND b.engine = s.engine
     AND b.task = s.task AND b.split = s.split AND b.shots = s.shots AND b.seed = s.seed
     AND b.example = s.example AND b.format = s.format
    GROUP BY ALL
)
SELECT l.run, l.model, l.method, l.control_seed, l.proxy, l.layer, l.rate, l."count", l.ablation,
       s.accuracy AS search_accuracy, s.baseline_accuracy AS search_baseline_accuracy,
       s.copying_error AS search_copying_error
FROM _labels l
LEFT JOIN search s ON s.run = l.run AND s.model = l.model AND s.ablation = l.ablation
 AND s.proxy = l.proxy
WHERE l.role = 'chosen'
ORDER BY l.run, l.model, l.method, l.proxy, l.control_seed
""",
    search_accuracy="accuracy of the chosen ablation on the search split",
    search_baseline_accuracy="accuracy of the untouched model on the same examples",
    search_copying_error="copying error of the chosen ablation on the search split",
)

_COPYING = _view(
    "copying",
    "copying errors on the report split, next to what chance alone would give",
    "run model method matched_to task shots n accuracy copying_error copy_share chance "
    "copied_last_share",
    """
WITH answered AS MATERIALIZED (
    SELECT run, model, method, coalesce(matched_to, '') AS matched, task, shots, gold, correct,
           copied, failed, answers, copied_position, row_number() OVER () AS id
    FROM _lines WHERE split = 'report' AND repeat = 0 AND role IS NOT NULL
),
labels AS (
    SELECT run, model, method, matched, task, shots, gold, count(*)
           / sum(count(*)) OVER (PARTITION BY run, model, method, matched, task, shots) AS share
    FROM answered GROUP BY run, model, method, matched, task, shots, gold
),
shown AS (
    SELECT id, run, model, method, matched, task, shots,
           unnest(list_distinct(answers)) AS answer
    FROM answered WHERE correct = 0 AND failed = 0
),
expected AS (
    SELECT s.id, sum(l.share) AS share
    FROM shown s JOIN labels l USING (run, model, method, matched, task, shots)
    JOIN answered a ON a.id = s.id
    WHERE l.gold = s.answer AND s.answer <> a.gold
    GROUP BY s.id
)
SELECT run, model, method, nullif(matched, '') AS matched_to, task, shots, count(*) AS n,
       avg(correct) AS accuracy,
       avg(copied) AS copying_error,
       sum(copied) / nullif(count(*) - sum(correct), 0) AS copy_share,
       coalesce(sum(e.share / (1 - l.share)), 0) / count(*) AS chance,
       sum(CASE WHEN copied = 1 AND copied_position = len(answers) - 1 THEN 1 ELSE 0 END)
           / nullif(sum(copied), 0) AS copied_last_share
FROM answered a
JOIN labels l USING (run, model, method, matched, task, shots, gold)
LEFT JOIN expected e USING (id)
GROUP BY ALL
ORDER BY ALL
""",
    copy_share="share of the wrong answers that are copies, null if none is wrong",
    chance="copying error to expect if each wrong answer were drawn from the gold answers of the "
    "same task and shots, by their frequency and without the right one",
    copied_last_share="share of the copying errors that repeat the last demonstration",
)

_NOISE_FLOOR = _view(
    "noise_floor",
    "the baseline evaluated twice on the report split: what differs with nothing changed",
    "run model n changed accuracy_difference",
    """
WITH baseline AS MATERIALIZED (
    SELECT * FROM _answers WHERE split = 'report' AND role = 'baseline'
)
SELECT a.run, a.model, count(*) AS n,
       avg((a.prediction IS DISTINCT FROM b.prediction)::INTEGER) AS changed,
       avg(b.correct - a.correct) AS accuracy_difference
FROM baseline a
JOIN baseline b USING (run, model, engine, ablation, task, shots, seed, example, format)
WHERE a.repeat = 0 AND b.repeat = 1
GROUP BY ALL
ORDER BY ALL
""",
    n="prompts that were answered twice",
    changed="share of the predictions that differ",
    accuracy_difference="accuracy of the second evaluation minus that of the first",
)

_COMPARISONS = _view(
    "comparisons",
    "each ablation against the baseline, and each chosen one against its random controls, prompt "
    "by prompt, on the report split",
    "run model method ablation control_seed reference task shots n accuracy reference_accuracy "
    "difference difference_low difference_high only_this_right only_reference_right p_value "
    "q_value copying_error reference_copying_error copying_p_value",
    COMPARISONS,
    reference="baseline, or random: random components of the same layer, site and size, all "
    "seeds pooled",
    n="pairs of answers to the same prompt",
    reference_accuracy="share of right answers of the reference",
    difference="accuracy - reference_accuracy",
    difference_low="lower end of the 95% interval of difference (bootstrap over prompts)",
    difference_high="upper end of the 95% interval of difference (bootstrap over prompts)",
    only_this_right="pairs that only the ablation got right",
    only_reference_right="pairs that only the reference got right",
    p_value="exact McNemar test; with several control seeds a sign-flip test over prompts, since "
    "pairs that share a prompt are not independent",
    q_value="p_value after Benjamini-Hochberg within run, model and reference",
    reference_copying_error="copying error of the reference",
    copying_p_value="p_value for the copying errors",
)

_LEADERBOARD = _view(
    "leaderboard",
    "one line per method, and per set of random controls: means over the tasks of the report "
    "split; intervals and tests over queries (task, seed, example), tasks taken as given",
    "run model method matched_to layer rate ablations tasks n accuracy accuracy_low accuracy_high "
    "copying_error copying_error_low copying_error_high difference difference_low "
    "difference_high p_value difference_to_random difference_to_random_low "
    "difference_to_random_high",
    LEADERBOARD,
    copying_error_low="lower end of the 95% interval of copying_error (bootstrap over queries)",
    copying_error_high="upper end of the 95% interval of copying_error (bootstrap over queries)",
    ablations="different ablations, such as the seeds of a control",
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

#: Every view, in an order in which they can be created.
VIEWS: tuple[View, ...] = (
    _SCOPE,
    _LABELS,
    _MATCHED,
    _MATCHED_SETS,
    _GIVEN,
    _ANSWERS,
    _LINES,
    _LEADERBOARD,
    _COMPARISONS,
    _EVALUATIONS,
    _CHOSEN,
    _GRID,
    _COPYING,
    COMPLETENESS,
    RECALL,
    TASK_VECTOR_ACCURACY,
    OVERLAP,
    AGREEMENT,
    SCORERS,
    SEEDS,
    TRANSFER,
    CAPABILITY,
    IN_CONTEXT,
    LABEL_READINGS,
    LABEL_BIAS,
    IMPORTANCE,
    IMPORTANCE_AGREEMENT,
    REMOVAL_PAIRS,
    REMOVAL_CURVES,
    REMOVAL_MEANS,
    RETENTION,
    _NOISE_FLOOR,
    COSTS,
    FAILED_UNITS,
)
