"""Summaries of predictions: they are what the rows say, wherever the rows are, or made again."""

from __future__ import annotations

import random
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from results_folder import Folder, rows

from prunelib.results.outcomes import KEY, noted, summarise
from prunelib.results.storage import rows as rows_module
from prunelib.results.storage.compaction import compact
from prunelib.results.storage.verify import verify

VIEWS = ("leaderboard", "comparisons", "evaluations")


def fill(folder: Folder) -> None:
    """Two methods, a random control and a baseline, with errors and queries that come again."""
    rng = random.Random(0)
    for name, method, role in (("base", "none", "baseline"), ("ig", "wanda", "chosen"),
                               ("r0", "random", "control"), ("r1", "random", "control")):
        folder.intervention(name, method, role, seed=int(name[1]) if name[0] == "r" else None)
        for task in ("t", "u"):
            for seed in (0, 1):
                marks = "".join(rng.choices("10ce", (5, 3, 3, 1), k=12))
                folder.answers(name, marks, task=task, seed=seed, query=f"q{seed}",
                               unit_id=f"eval-{name}-{task}-{seed}")


def views(folder: Folder) -> dict[str, list[dict[str, Any]]]:
    return {view: rows(folder, f"FROM {view}") for view in VIEWS}


def has_summary(path: Path) -> bool:
    return noted(pq.read_metadata(path).metadata) is not None


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal but for the order in which DuckDB adds numbers up."""
    def rounded(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{name: round(value, 12) if isinstance(value, float) else value
                 for name, value in line.items()} for line in lines]

    for view in VIEWS:
        assert rounded(found[view]) == rounded(expected[view])


def parts_of(found: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Runs of rows of one key with increasing examples, row by row."""
    parts: list[list[dict[str, Any]]] = []
    for _, of_key in groupby(found, lambda row: [row[name] for name in KEY]):
        some = list(of_key)
        breaks = [i + 1 for i, (a, b) in enumerate(pairwise(some)) if b["example"] <= a["example"]]
        parts += [some[start:stop] for start, stop in zip([0, *breaks], [*breaks, len(some)],
                                                          strict=True)]
    return parts


def test_a_summary_says_of_each_answer_what_its_row_says(folder: Folder) -> None:
    fill(folder)
    given = [row for (table, _), some in folder.rows.items() if table == "predictions"
             for row in some]
    random.Random(1).shuffle(given)
    for row in given:
        row["unit_id"] = "u"
    folder.store.write("predictions", "u", given)
    found = summarise(folder.store.read("predictions")).to_pylist()
    expected = parts_of(given)
    assert len(found) == len(expected) > 50
    for part, of_part in zip(found, expected, strict=True):
        assert [part[name] for name in KEY] == [of_part[0][name] for name in KEY]
        bits = {name: np.unpackbits(np.frombuffer(part[name], np.uint8), count=part["n"]).tolist()
                for name in ("right", "copied", "failed")}
        assert bits == {"right": [row["correct"] and not row["error"] for row in of_part],
                        "copied": [row["copied"] and not row["error"] for row in of_part],
                        "failed": [row["error"] is not None for row in of_part]}
    asked = {part["prompts"]: [(row["example"], row["query"]) for row in of_part]
             for part, of_part in zip(found, expected, strict=True)}
    for part, of_part in zip(found, expected, strict=True):  # a digest, a list of prompts
        assert asked[part["prompts"]] == [(row["example"], row["query"]) for row in of_part]


def test_views_do_not_depend_on_where_summaries_are(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder)
    with monkeypatch.context() as patch:  # as older versions wrote files
        patch.setattr(rows_module, "notes", lambda content: {})
        folder.write()
    predictions = folder.root / "predictions"
    assert not any(map(has_summary, predictions.glob("*.parquet")))
    expected = views(folder)
    assert len(expected["comparisons"]) > 5
    again = next(some for (table, unit), some in folder.rows.items() if unit == "eval-r0-t-0")
    folder.store.write("predictions", "eval-r0-t-0", again)
    assert sum(map(has_summary, predictions.glob("*.parquet"))) == 1
    same(views(folder), expected)
    compact(folder.store, 0)
    (merged,) = (predictions / "merged").iterdir()
    assert has_summary(merged) and not list(predictions.glob("*.parquet"))
    same(views(folder), expected)


def test_what_was_written_again_counts_as_written_last(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.answers("base", "1100")
    folder.write()
    compact(folder.store, 0)
    again = [row | {"correct": True} for row in folder.rows["predictions", "eval-base"]]
    folder.store.write("predictions", "eval-base", again)
    assert [row["accuracy"] for row in rows(folder, "FROM leaderboard")] == [1.0]


def test_verify_finds_a_summary_of_other_rows(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.answers("base", "1100")
    true_notes = rows_module.notes

    def wrong(content: pa.Table) -> dict[bytes, bytes]:
        place = content.schema.get_field_index("correct")
        return true_notes(content.set_column(place, content.schema.field(place),
                                             pa.array([False] * len(content))))

    monkeypatch.setattr(rows_module, "notes", wrong)
    folder.write()
    (damage,) = verify(folder.root).damage
    assert (damage.unit, damage.what) == ("eval-base", "has a summary that is not of its rows")


def test_rows_do_not_change_with_their_summary(folder: Folder) -> None:
    fill(folder)
    folder.write()
    path = folder.root / "predictions" / "eval-ig-t-0.parquet"
    assert pq.read_table(path).to_pylist() == folder.rows["predictions", "eval-ig-t-0"]
