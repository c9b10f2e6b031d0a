"""Answers as every view counts them: the building blocks of the other views.

Views whose name starts with an underscore are building blocks of the others. Scope: a row
belongs to a run if its unit does under its model's name (table ``run_units``), and what two units
of a run both wrote counts once. Reported numbers come from answers with purpose ``report`` and the
first evaluation (repeat 0) only; an answer that is missing because of an error counts as wrong.
"""

from __future__ import annotations

from prunelib.results.views.base import view

SCOPE = view(
    "_scope",
    "units of each run, each once under each name of its model",
    "run unit_id model",
    "SELECT DISTINCT run, unit_id, model FROM run_units",
)

LABELS = view(
    "_labels",
    "where each intervention of a run comes from; equal ones of several origins have several lines",
    "run model intervention method role site layer rate count control_seed proxy only_task places",
    """
SELECT DISTINCT run, model, intervention, method, role, site, layer, rate, "count",
       seed AS control_seed, proxy, only_task,
       CASE WHEN kind = 'ablation' THEN split_part(content, ',"indices"', 1)
            WHEN kind = 'steering' AND role IN ('chosen', 'control')
            THEN steered_places(content) END AS places
FROM interventions JOIN _scope USING (unit_id, model)
""",
    places="layer and site of every component that is off; of a steering the dimensions that are "
    "changed and the length of what is added; null of others, and of steerings that were only "
    "tried",
)

# Every choice has controls of its own; choices of the same cell share them.
MATCHED = view(
    "_matched",
    "the random controls of each choice: same layer, site and size (of a steering the length of "
    "what is added), reported on the same tasks",
    "run model method choice rate only_task intervention control_seed",
    """
SELECT DISTINCT c.run, c.model, c.method, c.intervention AS choice, c.rate, c.only_task,
       r.intervention, r.control_seed
FROM _labels c
JOIN _labels r
  ON r.run = c.run AND r.model = c.model AND r.places = c.places
 AND r.rate IS NOT DISTINCT FROM c.rate AND r.only_task IS NOT DISTINCT FROM c.only_task
WHERE c.role = 'chosen' AND r.role = 'control' AND r.method = 'random'
""",
    method="attribution that chose",
    choice="digest of the chosen ablation",
    intervention="digest of a random control of it",
)

# A random search of another proxy has the same budget: it stands in where there is none of its own.
DRAWN = view(
    "_drawn",
    "what each choice is compared with that was drawn at random: its random controls, and the "
    "choices of random searches reported on the same tasks, of the same proxy if there are some",
    "run model method choice rate only_task reference intervention control_seed",
    """
SELECT run, model, method, choice, rate, only_task, 'random' AS reference, intervention,
       control_seed
FROM _matched
UNION ALL
SELECT DISTINCT run, model, method, choice, rate, only_task, 'random_search', intervention,
       control_seed
FROM (
    SELECT c.run, c.model, c.method, c.intervention AS choice, c.rate, c.only_task,
           r.intervention, r.control_seed, rank() OVER (
               PARTITION BY c.run, c.model, c.method, c.intervention, c.rate, c.only_task, c.proxy
               ORDER BY r.proxy IS DISTINCT FROM c.proxy) AS place
    FROM _labels c
    JOIN _labels r
      ON r.run = c.run AND r.model = c.model AND r.only_task IS NOT DISTINCT FROM c.only_task
    WHERE c.role = 'chosen' AND r.role = 'control' AND r.method = 'random_search'
      AND c.proxy IS NOT NULL  -- a user's own was not searched for
)
WHERE place = 1
""",
    method="attribution that chose",
    choice="digest of the chosen ablation",
    reference="random or random_search",
    intervention="digest of what was drawn, or chosen of a random ranking",
    control_seed="seed of the draw",
)

MATCHED_SETS = view(
    "_matched_sets",
    "the random controls of each attribution; attributions with the same ones have them together",
    "run model matched_to rate only_task intervention control_seed",
    """
WITH sets AS (
    SELECT run, model, method, list(control ORDER BY control) AS controls
    FROM (
        SELECT DISTINCT run, model, method, struct_pack(
            rate := rate, only_task := only_task, intervention := intervention,
            control_seed := control_seed) AS control
        FROM _matched
    )
    GROUP BY run, model, method
)
SELECT run, model, matched_to, control.rate AS rate, control.only_task AS only_task,
       control.intervention AS intervention, control.control_seed AS control_seed
FROM (
    SELECT run, model, string_agg(method, ', ' ORDER BY method) AS matched_to,
           unnest(controls) AS control
    FROM sets GROUP BY run, model, controls
)
""",
)

SET_LABELS = view(
    "_set_labels",
    "where each intervention of a run comes from, with the attributions of whose choices it is a "
    "random control; matched is empty for others, and where there are none",
    "run model intervention method role matched",
    """
SELECT DISTINCT l.run, l.model, l.intervention, l.method, l.role,
       coalesce(s.matched_to, '') AS matched
FROM _labels l
LEFT JOIN _matched_sets s
  ON l.role = 'control' AND l.method = 'random' AND s.run = l.run AND s.model = l.model
 AND s.intervention = l.intervention
""",
    matched="as matched_to",
)

#: Meanings of the columns of an answer.
ANSWER: dict[str, str] = {
    "seed": "seed of queries and demonstrations",
    "example": "example within task, split, purpose, shots and seed",
    "repeat": "0, or 1 for the baseline's second evaluation",
    "format": "prompt format",
    "query": "input that is asked about",
    "gold": "right answer",
    "prediction": "what the model answered",
    "answers": "answers of the demonstrations",
    "copied_position": "demonstration that was copied, from 0",
    "correct": "1 if right",
    "copied": "1 if wrong and equal to a demonstration's answer",
    "margin": "how sure the model was of the right answer, null outside the search",
    "failed": "1 if there is no answer because of an error",
}

GIVEN = view(
    "_given",
    "predictions of each run, each once; a missing answer is wrong",
    "run model engine intervention task split purpose shots seed example repeat format query gold "
    "prediction answers copied_position correct copied margin failed",
    """
SELECT run, model, engine, intervention, task, split, purpose, shots, seed, example, repeat,
       format, query, gold, prediction, answers, copied_position,
       (correct AND error IS NULL)::INTEGER AS correct,
       (copied AND error IS NULL)::INTEGER AS copied, margin,
       (error IS NOT NULL)::INTEGER AS failed
FROM predictions JOIN _scope USING (unit_id, model)
WHERE purpose <> 'left_out'
QUALIFY row_number() OVER (
    PARTITION BY run, model, engine, intervention, task, split, purpose, shots, seed, example,
                 repeat, format
    ORDER BY unit_id) = 1
""",
    **ANSWER,
)

#: After answers ``p`` of a run: the labels ``l`` that count for their purpose.
LABELLED = """LEFT JOIN (
    -- One line per label, whatever number of proxies and tasks it has: answers count once.
    SELECT run, model, intervention, method, role, layer, rate, "count", control_seed,
           list(proxy) AS proxies, list(only_task) AS tasks,
           bool_or(only_task IS NULL) AS everywhere
    FROM _labels GROUP BY ALL
) l
  ON l.run = p.run AND l.model = p.model AND l.intervention = p.intervention
 AND (l.role = 'baseline'
      OR (l.role = 'grid' AND p.purpose = 'search' AND list_contains(l.proxies, p.task))
      OR (l.role IN ('chosen', 'control')
          AND (p.purpose = 'report' AND (l.everywhere OR list_contains(l.tasks, p.task))
               OR p.purpose = 'capability')))"""

#: After labelled answers ``a``: the sets ``s`` of controls that they are of.
MATCHED_TO = """LEFT JOIN (
    SELECT run, model, matched_to, rate, intervention, control_seed, list(only_task) AS tasks,
           bool_or(only_task IS NULL) AS everywhere
    FROM _matched_sets GROUP BY ALL
) s
  ON a.role = 'control' AND a.method = 'random' AND s.run = a.run AND s.model = a.model
 AND s.intervention = a.intervention AND s.rate IS NOT DISTINCT FROM a.rate
 AND s.control_seed = a.control_seed
 AND (s.everywhere OR list_contains(s.tasks, a.task) OR a.purpose = 'capability')"""

ANSWERS = view(
    "_answers",
    "predictions of each run, each once, under the label that counts for their purpose",
    "run model engine intervention method role layer rate count control_seed task split purpose "
    "shots seed example repeat format query gold prediction answers copied_position correct copied "
    "failed",
    f"""
SELECT p.run, p.model, p.engine, p.intervention, l.method, l.role, l.layer, l.rate, l."count",
       l.control_seed, p.task, p.split, p.purpose, p.shots, p.seed, p.example, p.repeat, p.format,
       p.query, p.gold, p.prediction, p.answers, p.copied_position, p.correct, p.copied, p.failed
FROM _given p
{LABELLED}
""",  # noqa: S608
    **ANSWER,
)

LINES = view(
    "_lines",
    "as _answers, but those of a random control once for each set of attributions it is matched to",
    "run model engine intervention method role matched_to layer rate count control_seed task split "
    "purpose shots seed example repeat format query gold prediction answers copied_position "
    "correct copied failed",
    f"""
SELECT a.run, a.model, a.engine, a.intervention, a.method, a.role, s.matched_to, a.layer, a.rate,
       a."count", a.control_seed, a.task, a.split, a.purpose, a.shots, a.seed, a.example, a.repeat,
       a.format, a.query, a.gold, a.prediction, a.answers, a.copied_position, a.correct, a.copied,
       a.failed
FROM _answers a
{MATCHED_TO}
""",  # noqa: S608
    **ANSWER,
)

VIEWS = (SCOPE, LABELS, MATCHED, DRAWN, MATCHED_SETS, SET_LABELS, GIVEN, ANSWERS, LINES)
