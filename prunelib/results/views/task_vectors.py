"""The view on task vectors."""

from __future__ import annotations

from prunelib.results.views.base import view

TASK_VECTOR_ACCURACY = view(
    "task_vector_accuracy",
    "accuracy of bare queries, of prompts with demonstrations, and of bare queries with task "
    "vectors, on the report split",
    "run model method proxy task shots n layer zero_shot icl task_vector",
    """
SELECT l.run, l.model, l.method, l.proxy, v.task, v.shots, count(DISTINCT v.example) AS n,
       max(v.layer) AS layer,
       avg(v.correct::INTEGER) FILTER (v.way = 'zero_shot') AS zero_shot,
       avg(v.correct::INTEGER) FILTER (v.way = 'icl') AS icl,
       avg(v.correct::INTEGER) FILTER (v.way = 'task_vector') AS task_vector
FROM task_vectors v JOIN _scope s USING (unit_id)
JOIN _labels l ON l.run = s.run AND l.model = v.model AND l.intervention = v.intervention
 AND l.role IN ('baseline', 'chosen') AND coalesce(l.only_task, v.task) = v.task
WHERE v.split = 'report'
GROUP BY ALL
ORDER BY ALL
""",
    shots="demonstrations behind a vector, and of the in-context learning",
    n="queries",
    layer="layer whose output is the vector, chosen on the search split",
    zero_shot="share of right answers to bare queries",
    icl="share of right answers with demonstrations",
    task_vector="share of right answers to bare queries with task vectors",
)

VIEWS = (TASK_VECTOR_ACCURACY,)
