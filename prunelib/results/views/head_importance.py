"""The views on heads and FFNs: how much each matters, and how alike rankings are.

Definitions are those of :mod:`prunelib.heads.ranking`.
"""

from __future__ import annotations

from prunelib.results.views.base import view

_ABOUT_SCORES = {
    "site": "head or ffn",
    "layer": "layer, from 0",
    "index": "head within the layer, from 0; 0 for an FFN",
    "score": "name of the score; oracle is accuracy lost without the component (formulas.md §3.1)",
    "task": "task, null for scores on random sequences",
    "shots": "demonstrations per prompt, null likewise",
}

IMPORTANCE = view(
    "component_importance",
    "every score of every head and FFN, with its rank in the whole model; score oracle is what "
    "the search split loses without the component",
    "run model site layer index score task shots value standard_error rank prompts queries",
    """
WITH answered AS MATERIALIZED (
    SELECT run, model, engine, intervention, task, shots, seed, example, format, query, correct
    FROM _given WHERE purpose = 'importance' AND repeat = 0
),
alone AS (
    SELECT run, model, intervention, site, layer, "index" FROM _components WHERE role = 'component'
),
untouched AS (
    SELECT answered.* FROM answered
    JOIN (SELECT DISTINCT run, model, intervention FROM _labels WHERE role = 'baseline')
        USING (run, model, intervention)
),
scored AS (
    SELECT DISTINCT run, model, site, layer, "index", score, task, shots, "value",
           standard_error, prompts, queries
    FROM component_scores JOIN _scope USING (unit_id, model)
    UNION ALL
    -- The error of a mean over prompts, by query: of the sums over each query's prompts.
    SELECT run, model, site, layer, "index", 'oracle', task, shots, sum(lost) / sum(n),
           CASE WHEN count(*) > 1 THEN sqrt(count(*) / (count(*) - 1) * greatest(0, sum(lost ** 2)
                - 2 * sum(lost) / sum(n) * sum(n * lost)
                + (sum(lost) / sum(n)) ** 2 * sum(n ** 2))) / sum(n) END,
           sum(n)::BIGINT, count(*)
    FROM (
        SELECT c.run, c.model, c.site, c.layer, c."index", a.task, a.shots, a.query,
               sum(b.correct - a.correct) AS lost, count(*) AS n
        FROM alone c JOIN answered a USING (run, model, intervention)
        JOIN untouched b USING (run, model, engine, task, shots, seed, example, format)
        GROUP BY ALL
    )
    GROUP BY ALL
)
SELECT run, model, site, layer, "index", score, task, shots, "value", standard_error,
       row_number() OVER (PARTITION BY run, model, site, score, task, shots
                          ORDER BY "value" DESC, layer DESC, "index" DESC) AS "rank",
       prompts, queries
FROM scored
ORDER BY run, model, site, score, task, shots, "rank"
""",
    **_ABOUT_SCORES,
    value="mean over the prompts or sequences",
    rank="rank within model, site, score, task and shots: 1 = most important; of equal scores "
    "those of later layers (and later heads) come first, so that they are removed last",
    standard_error="standard error of value over queries (over sequences), null of one",
    prompts="prompts or sequences behind it",
    queries="different queries that these prompts ask, or sequences",
)

# The second join is by place in the order, which the released code compares (formulas.md §3.2).
IMPORTANCE_AGREEMENT = view(
    "importance_agreement",
    "two rankings of a model's heads, or of its FFNs, that differ in nothing but score, task or "
    "shots: how alike they are. A score on random sequences has no task and shots, and so is "
    "compared with every task and number of shots of other scores",
    "run model site score task shots other_score other_task other_shots components spearman "
    "spearman_low spearman_high spearman_as_released overlap_top",
    """
WITH ranked AS MATERIALIZED (
    SELECT run, model, site, "value", "rank",
           dense_rank() OVER (ORDER BY run, model, site, score, task, shots) AS id,
           row_number() OVER (PARTITION BY run, model, site, score, task, shots
                              ORDER BY layer, "index") AS component,
           -- Spearman's ranks: equal scores share the mean of their ranks
           rank() OVER (PARTITION BY run, model, site, score, task, shots ORDER BY "value")
           + count(*) OVER (PARTITION BY run, model, site, score, task, shots, "value") / 2
               AS place,
           score, task, shots
    FROM component_importance
),
sources AS (
    SELECT id, run, model, site, score, task, shots, count(*) AS components,
           min("value") < max("value") AS differ
    FROM ranked GROUP BY ALL
),
pairs AS (
    SELECT a.run, a.model, a.site, a.id AS a_id, b.id AS b_id, a.components,
           a.differ AND b.differ AS differ, a.score, a.task, a.shots, b.score AS other_score,
           b.task AS other_task, b.shots AS other_shots
    FROM sources a JOIN sources b ON a.run = b.run AND a.model = b.model AND a.site = b.site
     AND a.components = b.components AND a.id < b.id
    WHERE (a.score <> b.score)::INTEGER + coalesce(a.task <> b.task, false)::INTEGER
          + coalesce(a.shots <> b.shots, false)::INTEGER = 1
),
alike AS (
    SELECT p.a_id, p.b_id,
           greatest(-1, least(1, corr(a.place, b.place))) AS spearman,
           count(*) FILTER (a."rank" <= 3 * p.components // 10
                            AND b."rank" <= 3 * p.components // 10) AS shared
    FROM pairs p JOIN ranked a ON a.id = a_id
    JOIN ranked b ON b.id = b_id AND b.component = a.component
    GROUP BY ALL
),
released AS (
    SELECT p.a_id, p.b_id,
           greatest(-1, least(1, corr(a.component, b.component))) AS spearman_as_released
    FROM pairs p JOIN ranked a ON a.id = a_id JOIN ranked b ON b.id = b_id AND b."rank" = a."rank"
    GROUP BY ALL
),
found AS (
    SELECT p.*, CASE WHEN differ THEN spearman END AS spearman, shared, spearman_as_released
    FROM pairs p JOIN alike USING (a_id, b_id) JOIN released USING (a_id, b_id)
),
ends AS (
    SELECT *, CASE WHEN components > 3 AND abs(spearman) < 1 THEN 1.959963984540054
                   * sqrt((1 + spearman * spearman / 2) / (components - 3)) END AS half
    FROM found
)
SELECT run, model, site, score, task, shots, other_score, other_task, other_shots, components,
       spearman,
       CASE WHEN half IS NOT NULL THEN tanh(atanh(spearman) - half)
            WHEN components > 3 THEN spearman END AS spearman_low,
       CASE WHEN half IS NOT NULL THEN tanh(atanh(spearman) + half)
            WHEN components > 3 THEN spearman END AS spearman_high,
       CASE WHEN components > 1 THEN spearman_as_released END AS spearman_as_released,
       shared / nullif(3 * components // 10, 0) AS overlap_top
FROM ends
ORDER BY ALL
""",
    **_ABOUT_SCORES,
    other_score="score of the other ranking",
    other_task="task of the other ranking",
    other_shots="demonstrations per prompt of the other ranking",
    components="heads, or FFNs, of the model",
    spearman="rank correlation over all components, equal scores with the mean of their ranks; "
    "null if one of the rankings has no order",
    spearman_low="lower end of its 95% interval (Fisher's, with the variance of Bonett and Wright)",
    spearman_high="upper end of the same",
    spearman_as_released="correlation of the two lists of component numbers in order of "
    "importance, as the paper's code computes it: another number (formulas.md §3.2)",
    overlap_top="share of the most important 30% (rounded down) that the rankings have in common; "
    "unrelated ones have 0.3 on average; null if 30% is less than one component",
)

VIEWS = (IMPORTANCE, IMPORTANCE_AGREEMENT)
