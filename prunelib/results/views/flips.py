"""The view of examples whose answer an intervention turned from one kind into another."""

from __future__ import annotations

from prunelib.results.views.base import PROMPT, view

FLIPS = view(
    "flips",
    "prompts of the report split whose answer an intervention turned right or wrong: what was "
    "asked, both answers, and the demonstration that was copied",
    "run model method role matched_to intervention control_seed task shots seed example format "
    "engine flip query gold before after demonstrations answers copied_position copied_input "
    "copied_answer",
    f"""
WITH answered AS MATERIALIZED (
    SELECT run, model, method, role, matched_to, intervention, control_seed, query, gold,
           prediction, answers, copied_position, correct, copied, {PROMPT}
    FROM _lines
    WHERE purpose = 'report' AND repeat = 0 AND role IN ('baseline', 'chosen', 'control')
),
untouched AS (SELECT * FROM answered WHERE role = 'baseline'),
shown AS (
    SELECT DISTINCT run, model, {PROMPT}, demonstrations
    FROM predictions JOIN _scope USING (unit_id, model)
    WHERE purpose = 'report' AND repeat = 0
)
SELECT a.run, a.model, a.method, a.role, a.matched_to, a.intervention, a.control_seed, a.task,
       a.shots, a.seed, a.example, a.format, a.engine,
       CASE WHEN a.correct = 0 THEN 'right to ' || CASE WHEN a.copied = 1 THEN 'copied'
                                                        ELSE 'wrong' END
            WHEN b.copied = 1 THEN 'copied to right' ELSE 'wrong to right' END AS flip,
       a.query, a.gold, b.prediction AS before, a.prediction AS after, s.demonstrations, a.answers,
       coalesce(a.copied_position, b.copied_position) AS copied_position,
       s.demonstrations[coalesce(a.copied_position, b.copied_position) + 1] AS copied_input,
       a.answers[coalesce(a.copied_position, b.copied_position) + 1] AS copied_answer
FROM answered a
JOIN untouched b USING (run, model, {PROMPT})
JOIN shown s USING (run, model, {PROMPT})
WHERE a.role <> 'baseline' AND a.correct <> b.correct
ORDER BY ALL
""",  # noqa: S608
    seed="seed of queries and demonstrations",
    example="example within task, split, purpose, shots and seed",
    format="prompt format",
    flip="copied to right, wrong to right, right to copied or right to wrong; wrong is one that is "
    "no copy, or no answer because of an error",
    query="input that is asked about",
    gold="right answer",
    before="what the untouched model answered, null after an error",
    after="what it answered under the intervention, null after an error",
    demonstrations="inputs of the demonstrations",
    answers="their answers",
    copied_position="demonstration that was copied before or after, from 0; null if none was",
    copied_input="its input",
    copied_answer="its answer",
)

VIEWS = (FLIPS,)
