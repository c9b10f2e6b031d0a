"""What a view is, and the meanings that columns have in every view."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """A view: one line about it, its columns with their meaning, its SELECT statement."""

    name: str
    description: str
    columns: dict[str, str]
    sql: str


#: Meanings that columns have in every view.
_COMMON = {
    "run": "recipe name and the first 8 hex digits of the recipe's digest",
    "model": "model as the recipe names it",
    "engine": "transformers or vllm",
    "ablation": "digest of the set of components that are off",
    "method": "ranking that chose the components; none for the baseline",
    "proxy": "task whose examples were attributed, or searched",
    "only_task": "the one task it is reported on, null for all",
    "objective": "scalar of the logits that is attributed",
    "role": "baseline, grid (a cell of the search), chosen or control",
    "layer": "layer, null if none or several",
    "site": "where the components sit, such as mlp_hidden; null for the baseline",
    "matched_to": "of a random control: the attributions of whose choices it has the layer, site "
    "and size; null for others",
    "rate": "share of the layer's components that are off, null if none or several",
    "count": "number of components that are off",
    "control_seed": "seed of a random ranking, or of the prompts where a recipe has several",
    "task": "task",
    "split": "attribute, search, report; capability and in_context count in the views of these "
    "names only",
    "shots": "demonstrations per prompt",
    "n": "answers",
    "stage": "step of the pipeline",
    "accuracy": "share of right answers",
    "accuracy_low": "lower end of the 95% interval of accuracy (Wilson)",
    "accuracy_high": "upper end of the 95% interval of accuracy (Wilson)",
    "copying_error": "share of answers that are wrong and equal to a demonstration's answer",
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
