"""The views: every aggregate that is reported, as SQL over the tables."""

from __future__ import annotations

from importlib import import_module

from prunelib.results.views.base import View

#: The topics: modules of this package, one line each, in an order in which their ``VIEWS`` can be
#: created.
TOPICS = (
    "answers",
    "cells",
    "comparisons",
    "leaderboard",
    "methods",
    "overview",
    "evaluations",
    "choice",
    "components",
    "copying",
    "flips",
    "attribution",
    "task_vectors",
    "capability",
    "multiple_choice",
    "lm_eval",
    "in_context_heads",
    "head_importance",
    "removal",
    "runs",
)

VIEWS: tuple[View, ...] = tuple(
    view for topic in TOPICS for view in import_module(f"prunelib.results.views.{topic}").VIEWS)
