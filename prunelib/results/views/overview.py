"""The view that one looks at first: the leaderboard's main columns, which fit a terminal."""

from __future__ import annotations

from prunelib.results.views.base import view

OVERVIEW = view(
    "overview",
    "what one looks at first: of each line of the leaderboard, what fits 80 columns",
    "run model method layer rate accuracy copying gain",
    """
SELECT run, model, method, layer, round(rate, 3) AS rate, round(accuracy, 3) AS accuracy,
       round(copying_error, 3) AS copying, round(difference, 3) AS gain
FROM leaderboard
""",
    accuracy="share of right answers, mean over tasks",
    copying="copying error, mean over tasks",
    gain="accuracy minus that of the baseline on the same prompts, mean over tasks",
)

VIEWS = (OVERVIEW,)
