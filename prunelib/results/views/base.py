"""What a view is, and the meanings that columns have in every view."""

from __future__ import annotations

from dataclasses import dataclass

from prunelib.vocabulary import PURPOSES, ROLES, STAGES, described


@dataclass(frozen=True)
class View:
    """A view: one line about it, its columns with their meaning, its SELECT statement."""

    name: str
    description: str
    columns: dict[str, str]
    sql: str


#: Meanings that columns have in every view.
#: A prompt within a run and a model: two answers to one prompt make a pair.
PROMPT = "engine, task, shots, seed, example, format"

_COMMON = {
    "run": "recipe name and the first 8 hex digits of the recipe's digest",
    "model": "model as the recipe names it",
    "engine": "transformers or vllm",
    "intervention": "digest of what is done to the model; that of the empty ablation is the "
    "untouched model",
    "method": "ranking that chose the components; none for the baseline",
    "proxy": "task whose examples were attributed, or searched",
    "only_task": "the one task it is reported on, null for all",
    "objective": "scalar of the logits that is attributed",
    "role": described(ROLES, "baseline", "grid", "chosen", "control"),
    "layer": "layer, null if none or several",
    "site": "where the components sit, such as mlp_hidden; null if nowhere or at several sites",
    "matched_to": "of a random control: the attributions, or own interventions, whose choices have "
    "its layer, site and size; null for others",
    "rate": "share of the layer's components that are off, null if none or several",
    "count": "number of components that are off",
    "control_seed": "seed of a random ranking, or of the prompts where a recipe has several",
    "task": "task",
    "split": "part of the task that the examples are of: attribute, search or report",
    "purpose": f"what answers were asked for; {described(PURPOSES)}",
    "shots": "demonstrations per prompt",
    "n": "answers",
    "prompts": "different prompts that were answered",
    "queries": "different queries (texts in a task) that the prompts ask about: what statistics "
    "take as independent",
    "stage": f"step of the pipeline; {described(STAGES)}",
    "accuracy": "share of right answers",
    "accuracy_low": "lower end of the 95% interval of accuracy (over queries, formulas.md §7)",
    "accuracy_high": "upper end of the 95% interval of accuracy (over queries, formulas.md §7)",
    "copying_error": "share of answers that are wrong and equal to a demonstration's answer",
    "difference_low": "lower end of the 95% interval of difference (over queries)",
    "difference_high": "upper end of the 95% interval of difference (over queries)",
    "unit_id": "unit of work",
    "nodes": "quadrature nodes used for the layer",
    "error_estimate": "estimated relative error of the layer's mean scores",
}


def view(name: str, description: str, columns: str, sql: str, **meanings: str) -> View:
    """A view with these ``columns`` (separated by blanks), in this order.

    ``meanings`` describe columns that are not common or mean something else here.
    """
    known = _COMMON | meanings
    return View(name, description, {c: known[c] for c in columns.split()}, sql)
