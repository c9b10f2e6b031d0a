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
from prunelib.results.columns import FLAG as _FLAG
from prunelib.results.columns import INTERVENTION as _INTERVENTION
from prunelib.results.columns import INTS as _INTS
from prunelib.results.columns import LARGE as _LARGE
from prunelib.results.columns import LAYER as _LAYER
from prunelib.results.columns import MODEL as _MODEL
from prunelib.results.columns import REAL as _REAL
from prunelib.results.columns import REALS as _REALS
from prunelib.results.columns import SCHEMA_VERSION as SCHEMA_VERSION
from prunelib.results.columns import SMALL as _SMALL
from prunelib.results.columns import TEXT as _TEXT
from prunelib.results.columns import TEXTS as _TEXTS
from prunelib.results.columns import TIME as _TIME
from prunelib.results.columns import UNIT as _UNIT
from prunelib.results.columns import column as _column
from prunelib.results.columns import table as _table
from prunelib.results.columns import words_column as _words
from prunelib.results.head_schemas import HEAD_TABLES
from prunelib.tasks import SPLITS

#: Splits of a task, and what they are for.
_SPLITS = dict(zip(SPLITS, ("components are scored on it", "ablations are chosen on it",
                            "results are reported on it"), strict=True))
_RUN = _column("run", _TEXT, "recipe name and the first 8 hex digits of the recipe's digest")
_METHOD = _column("method", _TEXT, "attribution, as the recipe names it: its method, or a name")
_OBJECTIVE = _column("objective", _TEXT, "scalar of the logits that is attributed, with the "
                     "switches that were moved", null=True)
_PROXY = _column("proxy", _TEXT, "task whose prompts were attributed")
_PROMPT_SEED = _column("seed", _LARGE, "seed of the prompts")

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
    _column("chat_template", _TEXT, "digest of the tokenizer's chat template, null without one",
            null=True),
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
    _column("queries", _SMALL, "different queries that these prompts ask"),
    _column("standard_error", _REAL, "standard error of the score over queries, from the first "
            "quadrature level; null of one query, and of methods whose score is no mean over "
            "prompts", null=True),
    _column("first_half_rank", _SMALL, "rank by half of the queries alone, null likewise",
            null=True),
    _column("second_half_rank", _SMALL, "rank by the other half alone, null likewise", null=True),
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
    _column("squares", _REALS, "with S the sum of a component's scores over the n prompts that ask "
            "one query: sum over queries of S², by the nodes of level 0 and in their last row; "
            "else empty"),
    _column("weighted", _REALS, "likewise the sum over queries of n·S"),
    _column("half", _REALS, "likewise the sum of S over every other query"),
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
    _words("scoring", "how the answer was read; ", vocabulary.SCORINGS),
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
        "demonstrations' other answers' first tokens together, or alone if there are none; of "
        "questions with own choices, score of the best right one minus that of the best wrong "
        "one; null outside the search",
        null=True,
    ),
    _column("gold_in_prompt", _FLAG, "whether a demonstration carries the right answer"),
    _column("demonstrations", _TEXTS, "inputs of the demonstrations, in prompt order"),
    _column("answers", _TEXTS, "answers of the demonstrations, in prompt order"),
    _column("prompt_tokens", _SMALL, "length of the prompt in tokens", null=True),
    _column("choices", _TEXTS, "the question's own choices, null if it has none", null=True),
    _column("right_choices", _INTS, "which of them are right, from 0", null=True),
    _column("choice_likelihoods", _REALS, "log-likelihood (natural) of each choice: the sum over "
            "the tokens of what is compared", null=True),
    _column("choice_characters", _INTS, "length of what is compared, in characters", null=True),
    _column("error", _TEXT, "why there is no answer, null if there is one", null=True),
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
    **HEAD_TABLES,
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


#: Tables whose rows name the unit that wrote them, and its model.
OF_UNITS = frozenset(name for name, schema in TABLES.items() if "unit_id" in schema.names
                     and description(schema.field("unit_id")) == description(_UNIT))
