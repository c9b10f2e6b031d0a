"""The tables of heads and FFNs."""

from __future__ import annotations

import pyarrow as pa

from prunelib.results.columns import (
    FLAG,
    INTERVENTION,
    INTS,
    LARGE,
    LAYER,
    MODEL,
    REAL,
    SMALL,
    TEXT,
    UNIT,
    column,
    table,
)

COMPONENT_SCORES = table(
    "component_scores",
    "one row per score of a head or FFN that is no count of answers",
    MODEL,
    column("site", TEXT, "head or ffn"),
    LAYER,
    column("index", SMALL, "head within the layer, from 0; 0 for an FFN"),
    column("score", TEXT, "name of the score, such as gradient_gate or prefix_matching"),
    column("task", TEXT, "task, null for scores on random sequences", null=True),
    column("shots", SMALL, "demonstrations per prompt, null likewise", null=True),
    column("value", REAL, "mean over the prompts or sequences"),
    column("standard_error", REAL, "standard error of value over queries (over sequences), null "
            "of one", null=True),
    column("prompts", SMALL, "prompts or sequences behind it"),
    column("queries", SMALL, "different queries that these prompts ask, or sequences"),
    UNIT,
)
LABEL_ANSWERS = table(
    "label_answers",
    "one row per answer behind majority-label and recency bias: the same queries under several "
    "conditions of their demonstrations; one row without an answer where a model refuses a "
    "mitigation",
    MODEL,
    column("engine", TEXT, "transformers, which alone can do what the mitigations do"),
    column("task", TEXT, "task with two new labels"),
    column("seed", LARGE, "seed of queries, demonstrations and orders"),
    column("mitigation", TEXT, "none, minority_boost or without_positions"),
    column("strength", REAL, "constant a_c of minority_boost, null for the others", null=True),
    column("mode", TEXT, "whether what heads say without positions does replace or add, null "
            "for the others", null=True),
    column("heads", SMALL, "heads in which the mitigation works"),
    column("condition", SMALL, "number of the condition, from 0", null=True),
    column("demonstrations", TEXT, "the condition: balanced; first or second: one fewer of that "
            "label; or order: balanced, in one order for all prompts", null=True),
    column("order", INTS, "that order, as indices into the second label's demonstrations and "
            "then the first's; null for an own random order of each prompt", null=True),
    column("example", SMALL, "example within task and seed, from 0: the same query and "
            "demonstrations under every condition", null=True),
    column("query", TEXT, "input that is asked about", null=True),
    column("gold", TEXT, "right label", null=True),
    column("prediction", TEXT, "the more probable label", null=True),
    column("correct", FLAG, "whether that is the right one", null=True),
    column("first_logprob", REAL, "log-probability (natural) of the first label's token",
            null=True),
    column("second_logprob", REAL, "the same of the second label", null=True),
    column("error", TEXT, "why the model refuses the mitigation, else null", null=True),
    UNIT,
)
REMOVALS = table(
    "removals",
    "one row per use of an ablation in an order of removal: which share was removed, by what",
    MODEL,
    INTERVENTION,
    column("order", TEXT, "own, aggregate, closest, farthest or random"),
    column("task", TEXT, "task it is evaluated on, null for all", null=True),
    column("shots", SMALL, "demonstrations that it is evaluated with, null for all", null=True),
    column("ranked_by", TEXT, "task whose importance gave the order of heads (of FFNs, where "
            "only these are removed), null for several or none", null=True),
    column("seed", LARGE, "seed of a random order, else null", null=True),
    column("heads", REAL, "share of the model's heads that was asked for"),
    column("ffns", REAL, "share of the model's FFNs that was asked for"),
    column("heads_removed", SMALL, "heads that are off"),
    column("ffns_removed", SMALL, "FFNs that are off"),
    UNIT,
)

#: Table name → schema, in the order in which they are described to people.
HEAD_TABLES: dict[str, pa.Schema] = {
    "component_scores": COMPONENT_SCORES,
    "removals": REMOVALS,
    "label_answers": LABEL_ANSWERS,
}
