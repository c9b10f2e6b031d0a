"""The view on copying errors."""

from __future__ import annotations

from prunelib.results.views.base import view

COPYING = view(
    "copying",
    "copying errors on the report split, next to what chance alone would give",
    "run model method matched_to task shots n prompts queries accuracy copying_error copy_share "
    "chance copied_last_share",
    """
WITH answered AS MATERIALIZED (
    SELECT run, model, method, coalesce(matched_to, '') AS matched, task, shots, gold, correct,
           copied, failed, answers, copied_position, query, seed, example, format,
           row_number() OVER () AS id
    FROM _lines WHERE purpose = 'report' AND repeat = 0 AND role IS NOT NULL
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
       count(DISTINCT (seed, example, format)) AS prompts, count(DISTINCT query) AS queries,
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

VIEWS = (COPYING,)
