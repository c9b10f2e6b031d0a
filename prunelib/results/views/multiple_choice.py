"""The view on questions with choices of their own, by each way of choosing."""

from __future__ import annotations

from prunelib.results.views.base import view

CHOICE_ACCURACY = view(
    "choice_accuracy",
    "accuracy on questions with choices of their own, by log-likelihood and by that divided by the "
    "choice's length, whichever of them the task uses",
    "run model engine intervention task split purpose shots scoring n accuracy "
    "likelihood_accuracy per_character_accuracy",
    """
WITH answered AS (
    SELECT run, model, engine, intervention, task, split, purpose, shots, scoring,
           coalesce(correct, false) AS correct, right_choices, choice_likelihoods AS raw,
           list_transform(list_zip(choice_likelihoods, choice_characters),
                          lambda pair: pair[1] / pair[2]) AS scaled
    FROM predictions JOIN _scope USING (unit_id, model)
    WHERE purpose <> 'left_out' AND choices IS NOT NULL AND scoring <> 'greedy_match' AND repeat = 0
    QUALIFY row_number() OVER (
        PARTITION BY run, model, engine, intervention, task, split, purpose, shots, seed, example,
                     format
        ORDER BY unit_id) = 1
)
SELECT run, model, engine, intervention, task, split, purpose, shots, scoring, count(*) AS n,
       avg(correct::INTEGER) AS accuracy,
       avg(coalesce(list_contains(right_choices, list_position(raw, list_max(raw)) - 1),
                    false)::INTEGER) AS likelihood_accuracy,
       avg(coalesce(list_contains(right_choices, list_position(scaled, list_max(scaled)) - 1),
                    false)::INTEGER) AS per_character_accuracy
FROM answered GROUP BY ALL ORDER BY ALL
""",
    scoring="how the task's answers are read",
    accuracy="by the task's own scoring; a missing answer is wrong",
    likelihood_accuracy="if the choice with the highest log-likelihood is taken (acc of "
    "lm-evaluation-harness)",
    per_character_accuracy="if log-likelihoods are first divided by the choice's length in "
    "characters (acc_norm)",
)

VIEWS = (CHOICE_ACCURACY,)
