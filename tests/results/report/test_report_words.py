"""The summary in words: numbers made by hand, and what a reader must be told about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_folder import add_choice
from results_folder import RUN, Folder, run_row

from prunelib.results.query import open_results
from prunelib.results.report.run import compute_views
from prunelib.results.report.words import SUMMARISED, summary


def said(place: Path) -> list[tuple[str, str]]:
    connection = open_results(place)
    compute_views(connection, RUN, SUMMARISED)
    return [(sentence.kind, sentence.text) for sentence in summary(connection, RUN)]


def only(sentences: list[tuple[str, str]], part: str) -> tuple[str, str]:
    (found,) = [one for one in sentences if part in one[1]]
    return found


def write(folder: Folder, *controls: int, right: int = 36, **changes: Any) -> list[tuple[str, str]]:
    add_choice(folder, list(controls), right, **changes)
    folder.write()
    return said(folder.root)


def test_a_choice_that_repairs_is_found(folder: Folder) -> None:
    sentences = write(folder, 22, 18, 21)
    kind, text = only(sentences, "accuracy goes")
    assert kind == "found"
    assert "3 components of layer 1 (10%)" in text
    assert "from 50% to 90% (+40.0 points, 95% interval" in text
    assert "copying errors from 20% to 0%" in text
    kind, text = only(sentences, "against random sets")
    # The random sets have 61 of 120 right: 36/40 - 61/120 = 39.2 points.
    assert kind == "found" and "+39.2 points" in text and "place 1 of 4" in text
    assert only(sentences, "random rankings")[0] == "caution"  # there are none
    assert only(sentences, "on 1 of 1 pairs of task and shots")[0] == "found"
    assert only(sentences, "not known how stable")[0] == "caution"
    assert not [text for _, text in sentences if "few queries" in text]  # 40 of them


def test_a_choice_no_better_than_its_controls_is_not_found(folder: Folder) -> None:
    sentences = write(folder, 36, 35, 37)
    assert only(sentences, "accuracy goes")[0] == "found"
    kind, text = only(sentences, "against random sets")
    assert kind == "not found" and "not surely better than chance" in text
    assert only(sentences, "some random sets of its layer and size are as good")[0] == "caution"


@pytest.mark.parametrize(("right", "told"), [(21, "no sure change"), (4, "gets worse")])
def test_a_choice_that_repairs_nothing_is_not_found(folder: Folder, right: int, told: str) -> None:
    kind, text = only(write(folder, 20, 21, right=right), "accuracy goes")
    assert kind == "not found" and told in text


@pytest.mark.parametrize(("shared", "kind", "told"), [
    (1, "not found", "not stable"), (3, "found", "fairly stable")])
def test_an_unstable_ranking_is_told(folder: Folder, shared: int, kind: str, told: str) -> None:
    """30 components, 3 of them switched off: two halves agree on some of these."""
    for i in range(30):
        second = i + 1 if i < shared else 30 - i + shared
        folder.add("attributions", {
            "model": "m", "method": "ig", "objective": "o", "proxy": "t", "shots": 2,
            "format": "arrow", "seed": 0, "site": "mlp_hidden", "layer": 1, "index": i,
            "score": 1.0 - i / 30, "rank": i + 1, "prompts": 8, "nodes": 4, "error_estimate": 0.1,
            "completeness_error": 0.1, "overlap": 0.5, "standard_error": 0.1,
            "first_half_rank": i + 1,
            "second_half_rank": second, "unit_id": "scores"})  # fmt: skip
    found = only(write(folder, 22, 18), "two halves of the 8 attributed queries")
    assert found[0] == kind and f"{shared} of 3 components" in found[1] and told in found[1]


def test_few_queries_are_told(folder: Folder) -> None:
    folder.add("runs", run_row(), RUN)
    folder.intervention("base", "none", "baseline")
    folder.answers("base", "1100")
    folder.write()
    assert only(said(folder.root), "few queries") == (
        "caution", "few queries: 1 task has fewer than 30 different ones (least: 4); intervals "
        "of single tasks are wide.")


def test_nothing_switched_off_is_told(folder: Folder) -> None:
    folder.add("runs", run_row(), RUN)
    folder.intervention("base", "none", "baseline")
    folder.intervention("base", "ig", "chosen", count=0, layer=None, rate=None, site=None)
    folder.answers("base", "1" * 20 + "0" * 20)
    folder.write()
    assert only(said(folder.root), "switches nothing off")[0] == "not found"


def test_what_is_missing_is_told(folder: Folder) -> None:
    folder.add("runs", run_row(status="running", finished=None), RUN)
    folder.intervention("base", "none", "baseline")
    folder.answers("base", "1" * 38 + "ee")
    folder.attempt("lost", "failed", 1)
    folder.write()
    sentences = said(folder.root)
    assert sentences[:3] == [
        ("caution", "The run has not ended: what follows is what it has so far."),
        ("caution", "1 units of work failed and are not in any number here: see Failures."),
        ("caution", "2 answers are missing because of an error; they count as wrong.")]


def test_a_study_of_heads_is_told(studied: Path) -> None:
    connection = open_results(studied)
    ((run,),) = connection.sql("SELECT run FROM runs").fetchall()
    compute_views(connection, run, SUMMARISED)
    texts = [sentence.text for sentence in summary(connection, run)]
    ((accuracy, baseline),) = connection.sql(
        "SELECT accuracy, baseline_accuracy FROM removal_means WHERE \"order\" = 'own' "
        "AND shots = 2 AND heads = 0.2 AND ffns = 0").fetchall()
    (told,) = [text for text in texts if "least important 20% of heads" in text]
    assert f"from {100 * baseline:.3g}% to {100 * accuracy:.3g}%" in told
    assert [text for text in texts if "rank correlation" in text]
