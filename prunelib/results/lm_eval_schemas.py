"""The table of the scores of lm-evaluation-harness."""

from __future__ import annotations

from prunelib.results.columns import (
    FLAG,
    INTERVENTION,
    LARGE,
    MODEL,
    REAL,
    SMALL,
    TEXT,
    UNIT,
    column,
    table,
)

LM_EVAL_SCORES = table(
    "lm_eval_scores",
    "one row per example of a task of lm-evaluation-harness, metric and filter, and one for all "
    "examples together where that is no mean",
    MODEL,
    column("engine", TEXT, "transformers or vllm"),
    INTERVENTION,
    column("task", TEXT, "task, as the harness names it"),
    column("task_digest", TEXT, "digest of the task's configuration and documents"),
    column("harness", TEXT, "version of lm-evaluation-harness"),
    column("request_type", TEXT, "multiple_choice, loglikelihood, loglikelihood_rolling or "
           "generate_until"),
    column("shots", SMALL, "demonstrations"),
    column("seed", LARGE, "by which demonstrations are drawn"),
    column("chat", FLAG, "whether the model's chat template wrote the prompts"),
    column("multiturn", FLAG, "whether each demonstration is a turn of its own"),
    column("system", TEXT, "system prompt, null without one", null=True),
    column("example", SMALL, "document of the task, from 0; null for all together", null=True),
    column("requests", TEXT, "digest of the texts that the model was asked about", null=True),
    column("target", TEXT, "right answer, as the task gives it", null=True),
    column("responses", TEXT, "what the model answered to each request (JSON): log-likelihood "
           "(natural) and whether it is what the model would write, or a text", null=True),
    column("metric", TEXT, "metric of the harness, null after an error", null=True),
    column("filter", TEXT, "what the harness did with the responses first", null=True),
    column("aggregation", TEXT, "how the harness puts examples together: mean, or a function of "
           "all values", null=True),
    column("value", REAL, "the metric's value, null where it is no number", null=True),
    column("parts", TEXT, "the value where it is no number (JSON), such as the log-likelihood and "
           "length of a text", null=True),
    column("error", TEXT, "why there is no value, null if there is one", null=True),
    UNIT,
)
