"""What is said at the end of a run: the figures of the views, and where to look next."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from jobs.run_summary import run_summary, with_notes
from prunelib import Recipe, open_results
from prunelib.pipeline.stages.choice_notes import notes
from prunelib.pipeline.stages.leaderboard import _tables
from prunelib.pipeline.stages.study import SummaryTable


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


def line(**changes: object) -> dict[str, object]:
    """A line of the leaderboard with nothing to say."""
    shares: dict[str, object] = {
        f"{name}{end}": 0.5 for name in ("accuracy", "copying_error", "difference",
                                         "difference_to_random", "difference_to_random_search")
        for end in ("", "_low", "_high")}
    return shares | changes


def test_random_neurons_are_told_apart_where_choices_differ() -> None:
    rows = [line(model=model, method=method, matched_to=matched, layer=layer, rate=0.1)
            for model, method, matched, layer in (
                ("m", "ig", None, 1), ("m", "random", "ig", 1), ("m", "random", "wanda", 0),
                ("other", "random", "ig, wanda", 0))]
    found = {table.title: [row[0] for row in table.rows]
             for table in _tables(rows, {("other", "random")}, {})}
    assert found == {
        "m": ["ig\n  layer 1, 10% off", "random as ig\n  layer 1, 10% off",
              "random as wanda\n  layer 0, 10% off"],
        "other": ["random\n  nothing off"],
    }  # fmt: skip


def test_differences_stand_side_by_side_in_80_columns() -> None:
    of_choice = {"difference": 0.1234, "difference_low": -0.1011, "difference_high": 0.1456}
    of_choice |= {f"difference_to_random{end}": value for end, value in
                  (("", -0.2), ("_low", -0.311), ("_high", -0.1))}
    of_choice |= {f"difference_to_random_search{end}": value for end, value in
                  (("", 0.3), ("_low", None), ("_high", None))}
    nothing = dict.fromkeys(of_choice)
    (table,) = _tables([
        line(model="m", method="none", matched_to=None, layer=None, rate=None, **nothing),
        line(model="m", method="integrated_gradients", matched_to=None, layer=1, rate=0.1,
             **of_choice)], set(), {})
    assert table.columns == ("method", "accuracy", "copied", "vs baseline", "vs random",
                             "vs search")
    assert table.rows[0] == ("baseline", "50.0\n50.0–50.0", "50.0", "", "", "")
    assert table.rows[1][3:] == ("+12.3\n-10.1, +14.6", "-20.0\n-31.1, -10.0", "+30.0")
    text = io.StringIO()
    Console(width=80, file=text).print(with_notes(table))
    assert "-31.1, -10.0" in text.getvalue() and "integrated_gradients" in text.getvalue()
    (alone,) = _tables([line(model="m", method="none", matched_to=None, layer=None, rate=None,
                                  **nothing)], set(), {})
    assert alone.columns == ("method", "accuracy", "copied")
def choice(method: str, warnings: str = "", **changes: object) -> dict[str, object]:
    return {"model": "m", "method": method, "count": 3, "search_n": 200, "detectable": 0.03,
            "warnings": warnings} | changes


def test_what_speaks_against_choices_is_said_once_for_all_that_it_is_about() -> None:
    few, tied = "too few search examples to show so small a gain", "some random sets are as good"
    assert notes([choice("ig")]) == ()
    assert notes([choice("ig", f"{few}; {tied}"), choice("wanda", tied)]) == (
        f"ig: {few} (200 examples show 3.0 points or more)", f"ig, wanda: {tied}")
    assert notes([choice("gate", few), choice("gate", few, search_n=10, detectable=0.2),
                  choice("gate"), choice("up", few)]) == (
        f"gate (2 of 3 choices), up: {few} (10–200 examples show 3.0–20.0 points or more)",)


def test_notes_stand_below_the_table_within_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    table = SummaryTable("m", ("method", "accuracy"), (("ig", "1.0"),), ("ig: " + "word " * 40,))
    Console(width=80).print(with_notes(table))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("m") and lines[-1].startswith("word")
    assert max(map(len, lines)) <= 80
