"""The tables: one explicit Arrow schema each, with the meaning of every column.

Columns are flat, and every number in a table was measured; whatever can be computed from them
is a view (:mod:`prunelib.results.views`). Rows become Arrow tables of these schemas in
:mod:`prunelib.results.arrow`.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from prunelib import vocabulary
from prunelib.interventions.registry import KINDS
from prunelib.results.columns import (
    FLAG,
    INTERVENTION,
    INTS,
    LARGE,
    LAYER,
    MODEL,
    REAL,
    REALS,
    SINGLES,
    SMALL,
    TEXT,
    TEXTS,
    TIME,
    UNIT,
    column,
    table,
    words_column,
)
from prunelib.results.head_schemas import HEAD_TABLES
from prunelib.results.lm_eval_schemas import LM_EVAL_SCORES
from prunelib.results.steering_schemas import CONTRASTS

_RUN = column("run", TEXT, "recipe name and the first 8 hex digits of the recipe's digest")
_METHOD = column("method", TEXT, "attribution, as the recipe names it: its method, or a name")
_OBJECTIVE = column("objective", TEXT, "scalar of the logits that is attributed, with the "
                    "switches that were moved", null=True)
_PROXY = column("proxy", TEXT, "task whose prompts were attributed")
_PROMPT_SEED = column("seed", LARGE, "seed of the prompts")

_RUNS = table(
    "runs",
    "one row per run, an execution of a recipe",
    _RUN,
    column("started", TIME, "when the run started (UTC)"),
    column("finished", TIME, "when the run ended (UTC), null while it runs", null=True),
    column("heartbeat", TIME, "last sign of life (UTC), every half minute", null=True),
    words_column("status", "", vocabulary.RUN_STATUSES),
    column("recipe", TEXT, "recipe as given (YAML)"),
    column("resolved", TEXT, "recipe with every default filled in (JSON)"),
    column("code_version", TEXT, "version of prunelib"),
    column("packages", TEXT, "versions of the installed packages that matter (JSON)"),
    column("hardware", TEXT, "machines, processors, accelerators (JSON)"),
    column("units_done", LARGE, "units whose results are there"),
    column("units_failed", LARGE, "units that failed for good"),
    column("predicted", TEXT, "seconds on one worker that the plan gave each model and stage when "
           "the run first started (JSON: model, stage, seconds), null if nothing like it had been "
           "measured there", null=True),
)
_RUN_UNITS = table(
    "run_units",
    "which units belong to which run; a unit may serve many runs",
    _RUN,
    column("unit_id", TEXT, "unit of work, or what the driver wrote"),
    column("stage", TEXT, "step of the pipeline, as in units; or what it is that the driver "
           "wrote, such as scores, grid or choice"),
    column("model", TEXT, "model as the recipe names it", null=True),
)
_UNITS = table(
    "units",
    "one row per attempt at a unit of work",
    column("run", TEXT, "run that made the attempt"),
    column("unit_id", TEXT, "unit of work"),
    words_column("stage", "step of the pipeline; ", vocabulary.STAGES),
    column("model", TEXT, "model as the recipe names it", null=True),
    column("detail", TEXT, "what the unit does, for people", null=True),
    words_column("status", "", vocabulary.ATTEMPT_STATUSES),
    column("worker", TEXT, "who did it", null=True),
    column("attempt", SMALL, "attempt, from 1"),
    column("batch_halvings", SMALL, "times that batches were halved for lack of memory",
           null=True),
    column("seconds", REAL, "wall-clock time of the attempt"),
    column("start_seconds", REAL, "part of it in which an engine was started and first "
           "switched to an intervention, null if none was", null=True),
    column("switch_seconds", REAL, "part of it in which a live engine was switched to another "
           "intervention and checked, null if it was not", null=True),
    column("peak_memory_mb", REAL, "peak resident memory of the worker in MB", null=True),
    column("gpus", SMALL, "GPUs that the worker held, 0 for one on a CPU; null where it is not "
           "known", null=True),
    column("error_kind", TEXT, "class of the error, null if done", null=True),
    column("error_text", TEXT, "message of the error, null if done", null=True),
    column("started_at", TIME, "when the attempt began, by the worker's clock (UTC); null where "
           "it is not known", null=True),
    column("finished_at", TIME, "when the driver heard of its end (UTC)"),
)
_MODELS = table(
    "models",
    "one row per model that was loaded",
    MODEL,
    column("revision", TEXT, "commit on the hub, or SHA-256 of a GGUF file", null=True),
    column("weights_digest", TEXT, "digest of the weight files"),
    column("tokenizer_digest", TEXT, "digest of the tokenizer files"),
    column("bos", TEXT, "whether its start token stands in front of prompts: auto (as its "
           "tokenizer does it), always or never"),
    column("chat_template", TEXT, "digest of the tokenizer's chat template, null without one",
           null=True),
    column("model_type", TEXT, "architecture family, as transformers names it"),
    column("layers", SMALL, "number of layers"),
    column("width", SMALL, "components per layer of the ablated site"),
    column("heads", SMALL, "attention heads per layer, 0 without attention"),
    UNIT,
)
_START_TOKENS = table(
    "start_tokens",
    "one row per model whose tokenizer knows a start token and does not put it in front of texts",
    MODEL,
    column("token_id", LARGE, "the start token"),
    column("token", TEXT, "its text"),
    column("tokens", SMALL, "tokens of plain text whose likelihood was compared"),
    column("with_start", REAL, "mean log-likelihood (natural) of a token with it in front"),
    column("without_start", REAL, "the same without it"),
    UNIT,
)
_ATTRIBUTIONS = table(
    "attributions",
    "one row per component: its score",
    MODEL,
    _METHOD,
    _OBJECTIVE,
    _PROXY,
    column("shots", SMALL, "demonstrations per prompt", null=True),
    column("format", TEXT, "prompt format"),
    _PROMPT_SEED,
    column("site", TEXT, "where the component sits, such as mlp_hidden"),
    LAYER,
    column("index", SMALL, "component within layer and site, from 0"),
    column("score", REAL, "score: the mean over the prompts, or what the recipe's "
           "aggregate_prompts asks for"),
    column("rank", SMALL, "place in the order in which the layer's components are switched off, "
           "1 = first: the highest score, or what the recipe's rank asks for"),
    column("prompts", SMALL, "prompts that the mean is taken over"),
    column("queries", SMALL, "different queries that these prompts ask"),
    column("standard_error", REAL, "standard error of the score over queries (with a tolerance, "
           "from the first quadrature level); null of one query, and of methods whose score is no "
           "mean over prompts", null=True),
    column("first_half_rank", SMALL, "rank by half of the queries alone, null likewise",
           null=True),
    column("second_half_rank", SMALL, "rank by the other half alone, null likewise", null=True),
    column("nodes", SMALL, "quadrature nodes used for the layer", null=True),
    column("error_estimate", REAL, "estimated relative error of the layer's scores by the "
           "quadrature", null=True),
    column("overlap", REAL, "share of the components that the rates of the search switch off "
           "which two halves of the queries agree on: mean over rates and ways to halve; null "
           "where scores of single prompts are not kept", null=True),
    column(
        "completeness_error", REAL, "median absolute completeness gap of the layer", null=True
    ),
    UNIT,
)
_PARTS = table(
    "attribution_parts",
    "one row per node of the path, for one layer and block of prompts: what scores are made of; "
    "other methods than integrated gradients have one row, at alpha 1",
    MODEL,
    LAYER,
    column("start", SMALL, "first prompt of the block"),
    column("level", SMALL, "quadrature level that added the node"),
    column("alpha", REAL, "place on the path from 0 to 1"),
    column("sums", REALS, "gradient of each component's scale (or another method's score), "
           "summed over the block's prompts"),
    column("totals", REALS, "gradient summed over components, per prompt"),
    column("values", REALS, "objective, per prompt"),
    column("squares", REALS, "with S the sum of a component's scores over the n prompts that ask "
           "one query: sum over queries of S², by the nodes of level 0 and in their last row; "
           "else empty"),
    column("weighted", REALS, "likewise the sum over queries of n·S"),
    column("half", REALS, "likewise the sum of S over every other query"),
    UNIT,
)
_PROMPT_SCORES = table(
    "prompt_scores",
    "one row per (prompt, layer, quadrature level): its scores by the nodes that the level adds",
    MODEL,
    LAYER,
    column("example", SMALL, "the prompt, as in predictions"),
    column("level", SMALL, "quadrature level; level 0 has 4 nodes, the others as many as all "
           "before together"),
    column("scores", SINGLES, "score of each component"),
    column("half_difference", REAL, "of level 0: squared length of half the difference between "
           "scores by one half of its nodes and by the other; else 0"),
    column("value_start", REAL, "objective at the start of the path, level 0 only", null=True),
    column("value_end", REAL, "objective at its end, the untouched model, level 0 only",
           null=True),
    UNIT,
)
_USED = table(
    "attribution_units",
    "one row per unit of work that an attribution or a steering is made of; several may share one",
    MODEL,
    _METHOD,
    _PROXY,
    _PROMPT_SEED,
    column("used_unit", TEXT, "unit that scored components, or answered prompts to choose from"),
    UNIT,
)
_PLANTED = table(
    "planted",
    "one row per component that is known to copy, for models that were made that way",
    MODEL,
    column("site", TEXT, "where the component sits, such as mlp_hidden"),
    LAYER,
    column("index", SMALL, "component within the layer, from 0"),
    UNIT,
)
_GAPS = table(
    "completeness_gaps",
    "one row per (prompt, layer): how far the scores are from the change they explain",
    MODEL,
    _METHOD,
    _OBJECTIVE,
    _PROXY,
    _PROMPT_SEED,
    column("layer", SMALL, "layer, from 0; the first of those that were scaled together"),
    column("example", SMALL, "prompt, from 0"),
    column("nodes", SMALL, "quadrature nodes used"),
    column("total", REAL, "sum of the scores for this prompt"),
    column("delta", REAL, "objective minus objective with what was scaled at zero"),
    column("gap", REAL, "total - delta"),
    UNIT,
)
_INTERVENTIONS = table(
    "interventions",
    "one row per use of an intervention: what it is and where it comes from",
    MODEL,
    INTERVENTION,
    column("kind", TEXT, f"kind of the intervention: {', '.join(KINDS)}"),
    column("content", TEXT, "all of it (JSON): of an ablation the layer, site and index of each "
           "component, as in the view components; of a fine-tuning its samples and settings; of "
           "a steering its edits, with shifts as base64 of float32"),
    column("method", TEXT, "ranking that chose the components, way to steer, or "
           + vocabulary.described(vocabulary.REFERENCE_METHODS)),
    words_column("role", "", vocabulary.ROLES),
    column("site", TEXT, "where the components sit, null if nowhere or at several sites",
           null=True),
    column("layer", SMALL, "layer, null if none or several", null=True),
    column("rate", REAL, "share of the components of its layers that are off", null=True),
    column("count", SMALL, "number of components that are off; of a steering, dimensions that are "
           "changed"),
    column("seed", LARGE, "seed of a random ranking, or of the prompts where a recipe has "
           "several, else null", null=True),
    column("proxy", TEXT, "task on whose examples the search decided", null=True),
    column("only_task", TEXT, "the one task it is reported on, null for all", null=True),
    column("strength", REAL, "of a steering: its multiplier, α or δ; else null", null=True),
    column("samples", SMALL, "prompts that it was found on, without those of its search; null of "
           "what is not found on prompts", null=True),
    UNIT,
)
_CANARIES = table(
    "canaries",
    "one row per intervention: what the model must answer to prove that the intervention is live",
    MODEL,
    INTERVENTION,
    column("token_ids", INTS, "prompt"),
    column("candidates", INTS, "token ids whose log-probabilities are checked"),
    column("logprobs", REALS, "expected log-probability of each candidate (natural)"),
    UNIT,
)
_PREDICTIONS = table(
    "predictions",
    "one row per answer of a model under an intervention",
    MODEL,
    column("engine", TEXT, "transformers or vllm"),
    INTERVENTION,
    column("task", TEXT, "task"),
    words_column("split", "part of the task that the example is of; ", vocabulary.SPLITS),
    words_column("purpose", "what it was asked for; ", vocabulary.PURPOSES),
    column("shots", SMALL, "demonstrations asked for"),
    column("seed", LARGE, "seed of queries and demonstrations"),
    column("example", SMALL, "example within task, split, purpose, shots and seed, from 0"),
    column("repeat", SMALL, "0, or 1 for the baseline's second evaluation"),
    column("format", TEXT, "prompt format"),
    words_column("scoring", "how the answer was read; ", vocabulary.SCORINGS),
    column("query", TEXT, "input that is asked about"),
    column("gold", TEXT, "right answer"),
    column("prediction", TEXT, "what the model answered, null after an error", null=True),
    column("correct", FLAG, "whether the prediction counts as the right answer"),
    column("copied", FLAG, "wrong and equal to the answer of a demonstration"),
    column(
        "copied_position",
        SMALL,
        "demonstration that was copied, from 0, the last one if several; null if none",
        null=True,
    ),
    column(
        "margin",
        REAL,
        "log-probability (natural) of the gold answer's first token minus that of the "
        "demonstrations' other answers' first tokens together, or alone if there are none; of "
        "questions with own choices, score of the best right one minus that of the best wrong "
        "one; null outside the search",
        null=True,
    ),
    column("gold_in_prompt", FLAG, "whether a demonstration carries the right answer"),
    column("demonstrations", TEXTS, "inputs of the demonstrations, in prompt order"),
    column("answers", TEXTS, "answers of the demonstrations, in prompt order"),
    column("prompt_tokens", SMALL, "length of the prompt in tokens", null=True),
    column("choices", TEXTS, "the question's own choices, null if it has none", null=True),
    column("right_choices", INTS, "which of them are right, from 0", null=True),
    column("choice_likelihoods", REALS, "log-likelihood (natural) of each choice: the sum over "
           "the tokens of what is compared", null=True),
    column("choice_characters", INTS, "length of what is compared, in characters", null=True),
    column("error", TEXT, "why there is no answer, null if there is one", null=True),
    UNIT,
)
_LIKELIHOODS = table(
    "likelihoods",
    "one row per text and intervention: how probable the text is",
    MODEL,
    INTERVENTION,
    column("source", TEXT, "prose, prompts (right answers after their prompts) or a file"),
    column("text", SMALL, "text within the source, from 0"),
    column("nll", REAL, "negative natural log-probability, summed over the scored tokens"),
    column("tokens", SMALL, "tokens that were scored"),
    column("unknown", SMALL, "tokens that the tokenizer does not know, which were not scored"),
    column("characters", SMALL, "length of the text, without its context"),
    UNIT,
)

_TASK_VECTORS = table(
    "task_vectors",
    "one row per answer of the three ways: zero-shot, with demonstrations, with task vectors",
    MODEL,
    INTERVENTION,
    column("task", TEXT, "task"),
    column("split", TEXT, "search, where the layer is chosen, or report"),
    column("shots", SMALL, "demonstrations behind a vector, and of the in-context learning"),
    column("seed", LARGE, "seed of queries and demonstrations"),
    column("way", TEXT, "zero_shot, icl (with demonstrations) or task_vector"),
    column("layer", SMALL, "layer whose output is the vector, null for the others", null=True),
    column("example", SMALL, "example within task and split, from 0"),
    column("query", TEXT, "input that is asked about"),
    column("gold", TEXT, "right answer"),
    column("prediction", TEXT, "what the model answered"),
    column("correct", FLAG, "whether the prediction counts as the right answer"),
    column("error", TEXT, "why the example was left out, null if it was not", null=True),
    UNIT,
)

#: Table name → schema, in the order in which they are described to people.
TABLES: dict[str, pa.Schema] = {
    "runs": _RUNS,
    "run_units": _RUN_UNITS,
    "units": _UNITS,
    "models": _MODELS,
    "start_tokens": _START_TOKENS,
    "planted": _PLANTED,
    "attribution_parts": _PARTS,
    "prompt_scores": _PROMPT_SCORES,
    "attributions": _ATTRIBUTIONS,
    "attribution_units": _USED,
    "completeness_gaps": _GAPS,
    "contrasts": CONTRASTS,
    "interventions": _INTERVENTIONS,
    **HEAD_TABLES,
    "canaries": _CANARIES,
    "predictions": _PREDICTIONS,
    "task_vectors": _TASK_VECTORS,
    "likelihoods": _LIKELIHOODS,
    "lm_eval_scores": LM_EVAL_SCORES,
}


def description(item: Any) -> str:
    """The meaning of a table (a schema) or of a column (a field), one line."""
    return str(item.metadata[b"description"].decode())


def words(field: pa.Field) -> frozenset[str] | None:
    """The vocabulary of a column; ``None`` where any text may stand."""
    found = field.metadata.get(b"words")
    return None if found is None else frozenset(found.decode().split())


#: Tables whose rows name the unit that wrote them, and its model.
OF_UNITS = frozenset(name for name, schema in TABLES.items() if "unit_id" in schema.names
                     and description(schema.field("unit_id")) == description(UNIT))
