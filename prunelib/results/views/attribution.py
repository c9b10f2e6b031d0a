"""The views that compare scores of the same components from different attributions."""

from __future__ import annotations

from prunelib.results.views.base import view

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
    FROM attributions JOIN _scope USING (unit_id)
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
