"""The tables: one explicit Arrow schema each, with the meaning of every column.

Columns are flat, and every number in a table was measured; whatever can be computed from them
is a view (:mod:`prunelib.results.views`). Rows become Arrow tables of these schemas in
:mod:`prunelib.results.arrow`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from prunelib import vocabulary
from prunelib.interventions.registry import KINDS
from prunelib.tasks import SPLITS

#: Goes up whenever a table or a column changes its meaning; stands in every file.
SCHEMA_VERSION = 2

_TEXT, _FLAG, _REAL = pa.string(), pa.bool_(), pa.float64()
_SMALL, _LARGE = pa.int32(), pa.int64()
_TIME = pa.timestamp("us", tz="UTC")
_INTS, _REALS, _TEXTS = pa.list_(pa.int32()), pa.list_(pa.float64()), pa.list_(pa.string())


def _column(name: str, kind: pa.DataType, description: str, null: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=null, metadata={"description": description})


def _words(name: str, description: str, words: Mapping[vocabulary.Word, str]) -> pa.Field:
    """A column that holds the words of a vocabulary only."""
    return pa.field(name, _TEXT, nullable=False, metadata={
        "description": description + vocabulary.described(words), "words": " ".join(words)})


def _table(name: str, description: str, *columns: pa.Field) -> pa.Schema:
    meta = {"table": name, "description": description, "schema_version": str(SCHEMA_VERSION)}
    return pa.schema(columns, metadata=meta)


#: Splits of a task, and what they are for.
_SPLITS = dict(zip(SPLITS, ("components are scored on it", "ablations are chosen on it",
                            "results are reported on it"), strict=True))
_RUN = _column("run", _TEXT, "recipe name and the first 8 hex digits of the recipe's digest")
_UNIT = _column("unit_id", _TEXT, "unit of work that wrote the row")
_MODEL = _column("model", _TEXT, "model as the recipe names it")
_METHOD = _column("method", _TEXT, "attribution, as the recipe names it: its method, or a name")
_OBJECTIVE = _column("objective", _TEXT, "scalar of the logits that is attributed, with the "
                     "switches that were moved", null=True)
_PROXY = _column("proxy", _TEXT, "task whose prompts were attributed")
_PROMPT_SEED = _column("seed", _LARGE, "seed of the prompts")
_LAYER = _column("layer", _SMALL, "layer, from 0")
_INTERVENTION = _column("intervention", _TEXT, "digest of what is done to the model; that of the "
                        "empty ablation is the untouched model")

_RUNS = _table(
    "runs",
    "one row per run, an execution of a recipe",
    _RUN,
    _column("started", _TIME, "when the run started (UTC)"),
    _column("finished", _TIME, "when the run ended (UTC), null while it runs", null=True),
    _column("heartbeat", _TIME, "last sign of life (UTC), every half minute", null=True),
    _words("status", "", vocabulary.RUN_STATUSES),
    _column("recipe", _TEXT, "recipe as given (YAML)"),
    _column("resolved", _TEXT, "recipe with every default filled in (JSON)"),
    _column("code_version", _TEXT, "version of prunelib"),
    _column("packages", _TEXT, "versions of the installed packages that matter (JSON)"),
    _column("hardware", _TEXT, "machines, processors, accelerators (JSON)"),
    _column("units_done", _LARGE, "units whose results are there"),
    _column("units_failed", _LARGE, "units that failed for good"),
)
_RUN_UNITS = _table(
    "run_units",
    "which units belong to which run; a unit may serve many runs",
    _RUN,
    _column("unit_id", _TEXT, "unit of work, or what the driver wrote"),
    _column("stage", _TEXT, "step of the pipeline, as in units; or what it is that the driver "
            "wrote, such as scores, grid or choice"),
    _column("model", _TEXT, "model as the recipe names it", null=True),
)
_UNITS = _table(
    "units",
    "one row per attempt at a unit of work",
    _column("run", _TEXT, "run that made the attempt"),
    _column("unit_id", _TEXT, "unit of work"),
    _words("stage", "step of the pipeline; ", vocabulary.STAGES),
    _column("model", _TEXT, "model as the recipe names it", null=True),
    _column("detail", _TEXT, "what the unit does, for people", null=True),
    _words("status", "", vocabulary.ATTEMPT_STATUSES),
    _column("worker", _TEXT, "who did it", null=True),
    _column("attempt", _SMALL, "attempt, from 1"),
    _column("batch_halvings", _SMALL, "times that batches were halved for lack of memory",
            null=True),
    _column("seconds", _REAL, "wall-clock time of the attempt"),
    _column("start_seconds", _REAL, "part of it in which an engine was started and first "
            "switched to an intervention, null if none was", null=True),
    _column("switch_seconds", _REAL, "part of it in which a live engine was switched to another "
            "intervention and checked, null if it was not", null=True),
    _column("peak_memory_mb", _REAL, "peak resident memory of the worker in MB", null=True),
    _column("error_kind", _TEXT, "class of the error, null if done", null=True),
    _column("error_text", _TEXT, "message of the error, null if done", null=True),
    _column("finished_at", _TIME, "when the attempt ended (UTC)"),
)
_MODELS = _table(
    "models",
    "one row per model that was loaded",
    _MODEL,
    _column("revision", _TEXT, "commit on the hub, null for local models", null=True),
    _column("weights_digest", _TEXT, "digest of the weight files"),
    _column("tokenizer_digest", _TEXT, "digest of the tokenizer files"),
    _column("model_type", _TEXT, "architecture family, as transformers names it"),
    _column("layers", _SMALL, "number of layers"),
    _column("width", _SMALL, "components per layer of the ablated site"),
    _column("heads", _SMALL, "attention heads per layer, 0 without attention"),
    _UNIT,
)
_ATTRIBUTIONS = _table(
    "attributions",
    "one row per component: its score",
    _MODEL,
    _METHOD,
    _OBJECTIVE,
    _PROXY,
    _column("shots", _SMALL, "demonstrations per prompt", null=True),
    _column("format", _TEXT, "prompt format"),
    _PROMPT_SEED,
    _column("site", _TEXT, "where the component sits, such as mlp_hidden"),
    _LAYER,
    _column("index", _SMALL, "component within layer and site, from 0"),
    _column("score", _REAL, "mean score over the prompts"),
    _column("rank", _SMALL, "place in the order in which the layer's components are switched off, "
            "1 = first: the highest score, or what the recipe's rank asks for"),
    _column("prompts", _SMALL, "prompts that the mean is taken over"),
    _column("nodes", _SMALL, "quadrature nodes used for the layer", null=True),
    _column("error_estimate", _REAL, "estimated relative error of the layer's scores", null=True),
    _column(
        "completeness_error", _REAL, "median absolute completeness gap of the layer", null=True
    ),
    _UNIT,
)
_PARTS = _table(
    "attribution_parts",
    "one row per node of the path, for one layer and block of prompts: what scores are made of; "
    "other methods than integrated gradients have one row, at alpha 1",
    _MODEL,
    _LAYER,
    _column("start", _SMALL, "first prompt of the block"),
    _column("level", _SMALL, "quadrature level that added the node"),
    _column("alpha", _REAL, "place on the path from 0 to 1"),
    _column("sums", _REALS, "gradient of each component's scale (or another method's score), "
            "summed over the block's prompts"),
    _column("totals", _REALS, "gradient summed over components, per prompt"),
    _column("values", _REALS, "objective, per prompt"),
    _UNIT,
)
_USED = _table(
    "attribution_units",
    "one row per unit of work that an attribution is made of; several may share one",
    _MODEL,
    _METHOD,
    _PROXY,
    _PROMPT_SEED,
    _column("used_unit", _TEXT, "unit that scored components, or answered prompts to choose from"),
    _UNIT,
)
_PLANTED = _table(
    "planted",
    "one row per component that is known to copy, for models that were made that way",
    _MODEL,
    _column("site", _TEXT, "where the component sits, such as mlp_hidden"),
    _LAYER,
    _column("index", _SMALL, "component within the layer, from 0"),
    _UNIT,
)
_GAPS = _table(
    "completeness_gaps",
    "one row per (prompt, layer): how far the scores are from the change they explain",
    _MODEL,
    _METHOD,
    _OBJECTIVE,
    _PROXY,
    _PROMPT_SEED,
    _column("layer", _SMALL, "layer, from 0; the first of those that were scaled together"),
    _column("example", _SMALL, "prompt, from 0"),
    _column("nodes", _SMALL, "quadrature nodes used"),
    _column("total", _REAL, "sum of the scores for this prompt"),
    _column("delta", _REAL, "objective minus objective with what was scaled at zero"),
    _column("gap", _REAL, "total - delta"),
    _UNIT,
)
_INTERVENTIONS = _table(
    "interventions",
    "one row per use of an intervention: what it is and where it comes from",
    _MODEL,
    _INTERVENTION,
    _column("kind", _TEXT, f"kind of the intervention: {', '.join(KINDS)}"),
    _column("content", _TEXT, "all of it (JSON): of an ablation the layer, site and index of each "
            "component, as in the view components; of a fine-tuning its samples and settings"),
    _column("method", _TEXT, "ranking that chose the components, or "
            + vocabulary.described(vocabulary.REFERENCE_METHODS)),
    _words("role", "", vocabulary.ROLES),
    _column("site", _TEXT, "where the components sit, null if nowhere or at several sites",
            null=True),
    _column("layer", _SMALL, "layer, null if none or several", null=True),
    _column("rate", _REAL, "share of the layer's components that are off", null=True),
    _column("count", _SMALL, "number of components that are off"),
    _column("seed", _LARGE, "seed of a random ranking, or of the prompts where a recipe has "
            "several, else null", null=True),
    _column("proxy", _TEXT, "task on whose examples the search decided", null=True),
    _column("only_task", _TEXT, "the one task it is reported on, null for all", null=True),
    _UNIT,
)
_CANARIES = _table(
    "canaries",
    "one row per intervention: what the model must answer to prove that the intervention is live",
    _MODEL,
    _INTERVENTION,
    _column("token_ids", _INTS, "prompt"),
    _column("candidates", _INTS, "token ids whose log-probabilities are checked"),
    _column("logprobs", _REALS, "expected log-probability of each candidate (natural)"),
    _UNIT,
)
_PREDICTIONS = _table(
    "predictions",
    "one row per answer of a model under an intervention",
    _MODEL,
    _column("engine", _TEXT, "transformers or vllm"),
    _INTERVENTION,
    _column("task", _TEXT, "task"),
    _words("split", "part of the task that the example is of; ", _SPLITS),
    _words("purpose", "what it was asked for; ", vocabulary.PURPOSES),
    _column("shots", _SMALL, "demonstrations asked for"),
    _column("seed", _LARGE, "seed of queries and demonstrations"),
    _column("example", _SMALL, "example within task, split, purpose, shots and seed, from 0"),
    _column("repeat", _SMALL, "0, or 1 for the baseline's second evaluation"),
    _column("format", _TEXT, "prompt format"),
    _column("query", _TEXT, "input that is asked about"),
    _column("gold", _TEXT, "right answer"),
    _column("prediction", _TEXT, "what the model answered, null after an error", null=True),
    _column("correct", _FLAG, "whether the prediction counts as the right answer"),
    _column("copied", _FLAG, "wrong and equal to the answer of a demonstration"),
    _column(
        "copied_position",
        _SMALL,
        "demonstration that was copied, from 0, the last one if several; null if none",
        null=True,
    ),
    _column(
        "margin",
        _REAL,
        "log-probability (natural) of the gold answer's first token minus that of the "
        "demonstrations' other answers' first tokens together, or alone if there are none; "
        "null outside the search",
        null=True,
    ),
    _column("gold_in_prompt", _FLAG, "whether a demonstration carries the right answer"),
    _column("demonstrations", _TEXTS, "inputs of the demonstrations, in prompt order"),
    _column("answers", _TEXTS, "answers of the demonstrations, in prompt order"),
    _column("prompt_tokens", _SMALL, "length of the prompt in tokens", null=True),
    _column("error", _TEXT, "why there is no answer, null if there is one", null=True),
    _UNIT,
)
_COMPONENT_SCORES = _table(
    "component_scores",
    "one row per score of a head or FFN that is no count of answers",
    _MODEL,
    _column("site", _TEXT, "head or ffn"),
    _LAYER,
    _column("index", _SMALL, "head within the layer, from 0; 0 for an FFN"),
    _column("score", _TEXT, "name of the score, such as gradient_gate or prefix_matching"),
    _column("task", _TEXT, "task, null for scores on random sequences", null=True),
    _column("shots", _SMALL, "demonstrations per prompt, null likewise", null=True),
    _column("value", _REAL, "mean over the prompts or sequences"),
    _column("prompts", _SMALL, "prompts or sequences behind it"),
    _UNIT,
)
_LABEL_BIASES = _table(
    "label_biases",
    "one row per accuracy from which majority-label and recency bias follow",
    _MODEL,
    _column("engine", _TEXT, "transformers, which alone can do what the mitigations do"),
    _column("task", _TEXT, "task with two new labels"),
    _column("seed", _LARGE, "seed of queries, demonstrations and orders"),
    _column("mitigation", _TEXT, "none, minority_boost or without_positions"),
    _column("strength", _REAL, "constant a_c of minority_boost, null for the others", null=True),
    _column("mode", _TEXT, "whether what heads say without positions does replace or add, null "
            "for the others", null=True),
    _column("heads", _SMALL, "heads in which the mitigation works"),
    _column("demonstrations", _TEXT, "balanced; first or second: one fewer of that label; or "
            "order: balanced, in one order for all prompts"),
    _column("order", _INTS, "that order, as indices into the second label's demonstrations and "
            "then the first's; null for an own random order of each prompt", null=True),
    _column("prompts", _SMALL, "prompts, as many of each label"),
    _column("accuracy", _REAL, "share of right answers, null after an error", null=True),
    _column("error", _TEXT, "why the model refuses the mitigation, else null", null=True),
    _UNIT,
)
_REMOVALS = _table(
    "removals",
    "one row per use of an ablation in an order of removal: which share was removed, by what",
    _MODEL,
    _INTERVENTION,
    _column("order", _TEXT, "own, aggregate, closest, farthest or random"),
    _column("task", _TEXT, "task it is evaluated on, null for all", null=True),
    _column("shots", _SMALL, "demonstrations that it is evaluated with, null for all", null=True),
    _column("ranked_by", _TEXT, "task whose importance gave the order of heads (of FFNs, where "
            "only these are removed), null for several or none", null=True),
    _column("seed", _LARGE, "seed of a random order, else null", null=True),
    _column("heads", _REAL, "share of the model's heads that was asked for"),
    _column("ffns", _REAL, "share of the model's FFNs that was asked for"),
    _column("heads_removed", _SMALL, "heads that are off"),
    _column("ffns_removed", _SMALL, "FFNs that are off"),
    _UNIT,
)
_LIKELIHOODS = _table(
    "likelihoods",
    "one row per text and intervention: how probable the text is",
    _MODEL,
    _INTERVENTION,
    _column("source", _TEXT, "prose, prompts (right answers after their prompts) or a file"),
    _column("text", _SMALL, "text within the source, from 0"),
    _column("nll", _REAL, "negative natural log-probability, summed over the scored tokens"),
    _column("tokens", _SMALL, "tokens that were scored"),
    _column("unknown", _SMALL, "tokens that the tokenizer does not know, which were not scored"),
    _column("characters", _SMALL, "length of the text, without its context"),
    _UNIT,
)

_TASK_VECTORS = _table(
    "task_vectors",
    "one row per answer of the three ways: zero-shot, with demonstrations, with task vectors",
    _MODEL,
    _INTERVENTION,
    _column("task", _TEXT, "task"),
    _column("split", _TEXT, "search, where the layer is chosen, or report"),
    _column("shots", _SMALL, "demonstrations behind a vector, and of the in-context learning"),
    _column("seed", _LARGE, "seed of queries and demonstrations"),
    _column("way", _TEXT, "zero_shot, icl (with demonstrations) or task_vector"),
    _column("layer", _SMALL, "layer whose output is the vector, null for the others", null=True),
    _column("example", _SMALL, "example within task and split, from 0"),
    _column("query", _TEXT, "input that is asked about"),
    _column("gold", _TEXT, "right answer"),
    _column("prediction", _TEXT, "what the model answered"),
    _column("correct", _FLAG, "whether the prediction counts as the right answer"),
    _UNIT,
)

#: Table name → schema, in the order in which they are described to people.
TABLES: dict[str, pa.Schema] = {
    "runs": _RUNS,
    "run_units": _RUN_UNITS,
    "units": _UNITS,
    "models": _MODELS,
    "planted": _PLANTED,
    "attribution_parts": _PARTS,
    "attributions": _ATTRIBUTIONS,
    "attribution_units": _USED,
    "completeness_gaps": _GAPS,
    "interventions": _INTERVENTIONS,
    "component_scores": _COMPONENT_SCORES,
    "removals": _REMOVALS,
    "label_biases": _LABEL_BIASES,
    "canaries": _CANARIES,
    "predictions": _PREDICTIONS,
    "task_vectors": _TASK_VECTORS,
    "likelihoods": _LIKELIHOODS,
}


def description(item: Any) -> str:
    """The meaning of a table (a schema) or of a column (a field), one line."""
    return str(item.metadata[b"description"].decode())


def words(field: pa.Field) -> frozenset[str] | None:
    """The vocabulary of a column; ``None`` where any text may stand."""
    found = field.metadata.get(b"words")
    return None if found is None else frozenset(found.decode().split())
