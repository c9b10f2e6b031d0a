"""Saved questions: what people ask of results again and again, in SQL."""

from __future__ import annotations

from typing import NamedTuple


class Question(NamedTuple):
    """What it answers, in a line, and its SQL."""

    description: str
    sql: str


#: By name, in the order in which they are listed.
QUESTIONS: dict[str, Question] = {
    "choices": Question(
        "what was chosen for each model, what it gains over the baseline, and what speaks "
        "against it",
        """
SELECT c.run, c.model, c.method, c.layer, c.rate, l.accuracy, l.difference, l.difference_low,
       l.difference_high, l.p_value, c.warnings
FROM chosen c
LEFT JOIN leaderboard l ON l.run = c.run AND l.model = c.model AND l.method = c.method
ORDER BY c.run, c.model, l.difference DESC NULLS LAST
"""),
    "better_than_random": Question(
        "each method beside random components of the same layer and size, and random searches",
        """
SELECT run, model, method, difference_to_random, difference_to_random_low,
       difference_to_random_high, random_rank, random_sets, difference_to_random_search,
       random_search_rank, random_searches
FROM leaderboard WHERE random_sets > 0 OR random_searches > 0
ORDER BY run, model, difference_to_random DESC NULLS LAST
"""),
    "copying_by_shot": Question(
        "copying errors by number of demonstrations, before and after, mean over tasks",
        """
SELECT run, model, method, shots, count(*) AS tasks,
       avg(reference_copying_error) AS baseline_copying_error,
       avg(copying_error) AS copying_error, avg(reference_accuracy) AS baseline_accuracy,
       avg(accuracy) AS accuracy
FROM comparisons WHERE reference = 'baseline' AND role = 'chosen'
GROUP BY ALL ORDER BY ALL
"""),
    "tasks_helped": Question(
        "each task at each number of shots where a choice differs from the baseline (q < 0.05)",
        """
SELECT run, model, method, task, shots, reference_accuracy AS baseline_accuracy, accuracy,
       difference, difference_low, difference_high, q_value
FROM comparisons WHERE reference = 'baseline' AND role = 'chosen' AND q_value < 0.05
ORDER BY run, model, method, difference DESC
"""),
    "copied_answers": Question(
        "examples of copying errors of the untouched model, ten of each task",
        """
SELECT DISTINCT model, task, shots, query, gold, prediction, answers
FROM predictions JOIN interventions USING (model, intervention)
WHERE role = 'baseline' AND copied AND purpose = 'report' AND repeat = 0
QUALIFY row_number() OVER (PARTITION BY model, task ORDER BY shots, query, answers) <= 10
ORDER BY model, task, shots, query
"""),
    "costs_by_stage": Question(
        "what each stage of each run cost, most first",
        """
SELECT run, stage, sum(units)::BIGINT AS units, sum(seconds) / 3600 AS hours,
       sum(starts)::BIGINT AS starts, sum(switches)::BIGINT AS switches
FROM costs GROUP BY ALL ORDER BY run, hours DESC
"""),
    "failures": Question(
        "what failed for good, by the error that it ended in",
        """
SELECT run, stage, model, error_kind, count(*) AS units, min(detail) AS such_as,
       min(error_text) AS error_text
FROM failed_units GROUP BY ALL ORDER BY run, units DESC
"""),
}
