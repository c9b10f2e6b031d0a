"""What is said at the end of a run: the figures of the views, and where to look next."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from jobs.run_summary import run_summary
from prunelib import Recipe, open_results
from prunelib.pipeline.stages.neurons import _leaderboard


def said(results: Path) -> tuple[str, str]:
    ((run, resolved),) = open_results(results).sql("SELECT run, resolved FROM runs").fetchall()
    tables, question = run_summary(Recipe.model_validate_json(resolved), str(results), run)
    text = io.StringIO()
    Console(width=100, file=text).print(tables)
    return text.getvalue(), question


def test_removal_is_told_by_share_and_order(studied: Path) -> None:
    text, question = said(studied)
    assert question == "select * from removal_means"
    found = open_results(studied).sql(
        "SELECT accuracy FROM removal_means WHERE shots = 2 AND ffns = 0 AND heads = 0.5 "
        "ORDER BY array_position(['own', 'aggregate', 'closest', 'farthest', 'random'], \"order\")"
    ).fetchall()
    _, _, of_two = text.partition("reference/llama, 2 shots")
    line = next(line for line in of_two.splitlines() if line.startswith("50% of heads"))
    assert line.split()[3:] == [f"{100 * accuracy:.1f}" for (accuracy,) in found]
    assert "copying errors" not in text  # nothing was chosen
    assert open_results(studied).sql(question).fetchall()


def test_random_neurons_are_told_apart_where_choices_differ() -> None:
    shares = {f"{name}{end}": 0.5 for name in ("accuracy", "copying_error", "difference")
              for end in ("", "_low", "_high")}
    rows = [shares | {"model": model, "method": method, "matched_to": matched, "layer": layer,
                      "rate": 0.1}
            for model, method, matched, layer in (
                ("m", "ig", None, 1), ("m", "random", "ig", 1), ("m", "random", "wanda", 0),
                ("other", "random", "ig, wanda", 0))]
    found = {table.title: [row[0] for row in table.rows] for table in _leaderboard(rows)}
    assert found == {
        "m": ["ig\n  layer 1, 10% off", "random as ig\n  layer 1, 10% off",
              "random as wanda\n  layer 0, 10% off"],
        "other": ["random\n  layer 0, 10% off"],
    }  # fmt: skip
