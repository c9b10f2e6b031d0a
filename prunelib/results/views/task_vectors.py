"""The view on task vectors."""

from __future__ import annotations

from prunelib.results.views.base import view

_WAYS = {"zero_shot": "share of right answers to bare queries",
         "icl": "share of right answers with demonstrations",
         "task_vector": "share of right answers to bare queries with task vectors"}

TASK_VECTOR_ACCURACY = view(
    "task_vector_accuracy",
    "accuracy of bare queries, of prompts with demonstrations, and of bare queries with task "
    "vectors, on the report split",
    "run model method proxy task shots prompts queries layer "
    + " ".join(f"{way} {way}_low {way}_high" for way in _WAYS),
    f"""
WITH answered AS (
    SELECT DISTINCT l.run, l.model, l.method, l.proxy, v.task, v.shots, v.seed, v.example, v.query,
           v.layer, v.way, v.correct
    FROM task_vectors v JOIN _scope s USING (unit_id, model)
    JOIN _labels l ON l.run = s.run AND l.model = v.model AND l.intervention = v.intervention
     AND l.role IN ('baseline', 'chosen') AND coalesce(l.only_task, v.task) = v.task
    WHERE v.split = 'report' AND v.error IS NULL
),
by_query AS (
    SELECT run, model, method, proxy, task, shots, query, max(layer) AS layer,
           count(DISTINCT (seed, example)) AS n,
           {", ".join(f"count(*) FILTER (way = '{way}') AS {way}_n, "
                      f"sum(correct::INTEGER) FILTER (way = '{way}') AS {way}"
                      for way in _WAYS)}
    FROM answered GROUP BY ALL
),
found AS (
    SELECT run, model, method, proxy, task, shots, sum(n)::BIGINT AS prompts, count(*) AS queries,
           max(layer) AS layer,
           {", ".join(f"sum({way}) / sum({way}_n) AS {way}_share, "
                      f"share_interval([share_sums({way}_n, {way})]) AS {way}" for way in _WAYS)}
    FROM by_query GROUP BY ALL
)
SELECT run, model, method, proxy, task, shots, prompts, queries, layer,
       {", ".join(f"{way}_share AS {way}, {way}[1] AS {way}_low, {way}[2] AS {way}_high"
                  for way in _WAYS)}
FROM found
ORDER BY ALL
""",  # noqa: S608
    shots="demonstrations behind a vector, and of the in-context learning",
    layer="layer whose output is the vector, chosen on the search split",
    **_WAYS,
    **{f"{way}_low": f"lower end of the 95% interval of {way} (over queries)" for way in _WAYS},
    **{f"{way}_high": f"upper end of the 95% interval of {way} (over queries)" for way in _WAYS},
)

VIEWS = (TASK_VECTOR_ACCURACY,)
