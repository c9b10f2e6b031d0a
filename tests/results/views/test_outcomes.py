"""Sums over cells and pairs of cells, against the same answer by answer."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from results_folder import Folder

from prunelib.results.storage.outcomes import read_outcomes
from prunelib.results.views.outcomes import Cell, Outcomes

Answer = dict[str, Any]


@pytest.fixture
def cells(folder: Folder) -> tuple[Outcomes, list[Cell], list[list[Answer]]]:
    """Cells of one to three units that answered some of 30 prompts, in any order."""
    rng = np.random.default_rng(3)
    expected: list[list[Answer]] = []
    units: list[list[str]] = []
    queries = rng.integers(8, size=(2, 30))
    for number in range(12):
        seed, answers = number % 2, {}
        units.append([])
        for part in range(1 + number % 3):
            unit = f"u{number:02}-{part}"
            units[-1].append(unit)
            asked = range(30) if number < 4 else rng.permutation(30)[:rng.integers(1, 31)]
            for example in asked:
                marks = "".join(rng.choice(list("10ce"), p=[0.4, 0.3, 0.2, 0.1], size=1))
                folder.answers(f"i{number}", marks, unit_id=unit, seed=seed, example=int(example),
                               query=f"q{queries[seed, example]}")
                row = folder.rows["predictions", unit][-1]
                answers.setdefault(row["example"], row)  # of several units the first counts
        expected.append(list(answers.values()))
    folder.write()
    current = folder.store.current("predictions")
    outcomes = Outcomes(lambda: read_outcomes([(folder.store, current)]))
    parts: dict[str, list[int]] = defaultdict(list)
    for place, unit in enumerate(outcomes.summary["unit_id"].to_pylist()):
        parts[unit].append(place)
    found = [tuple(part for unit in some for part in parts[unit]) for some in units]
    return outcomes, found, expected


def right(row: Answer) -> int:
    return int(row["correct"] and row["error"] is None)


def copied(row: Answer) -> int:
    return int(row["copied"] and row["error"] is None)


def sums(*columns: list[int]) -> list[float]:
    """k, Σn, Σn², and of each further column x Σx, Σx², Σnx."""
    n, *others = map(np.array, columns)
    found = [len(n), n.sum(), n @ n]
    for x in others:
        found += [x.sum(), x @ x, n @ x]
    return [float(value) for value in found]


def test_counts_and_tallies(cells: tuple[Outcomes, list[Cell], list[list[Answer]]]) -> None:
    outcomes, given, expected = cells
    for cell, answers in zip(given, expected, strict=True):
        assert outcomes.counts(cell) == (len(answers), sum(map(right, answers)),
                                         sum(map(copied, answers)))
    for some in ([0], [4], [0, 2], [0, 1, 2, 3], list(range(12))):
        answers = [row for i in some for row in expected[i]]
        by_query = defaultdict(list)
        for row in answers:
            by_query[row["query"]].append(row)
        tally = outcomes.tally([given[i] for i in some])
        assert tally[:6] == (
            len(answers), len({(row["seed"], row["example"]) for row in answers}), len(by_query),
            sum(map(right, answers)), sum(map(copied, answers)),
            sum(row["error"] is not None for row in answers))
        n = [len(rows) for rows in by_query.values()]
        assert sorted(tally.rights) == sorted(sums(n, [sum(map(right, rows))
                                                       for rows in by_query.values()]))
        assert tally.copies.tolist() == sums(n, [sum(map(copied, rows))
                                                 for rows in by_query.values()])


def test_pairs(cells: tuple[Outcomes, list[Cell], list[list[Answer]]]) -> None:
    outcomes, given, expected = cells
    for some in ([(0, 2)], [(1, 3)], [(0, 4)], [(5, 9), (6, 8)], [(0, 2), (1, 3), (4, 10), (7, 5)]):
        pairs = [[(a, b) for a in expected[i] for b in expected[j] if a["example"] == b["example"]]
                 for i, j in some]
        for (i, j), these in zip(some, pairs, strict=True):
            assert outcomes.gaps(given[i], given[j]) == (len(these), *(
                sum(mark(x) > mark(y) for x, y in (pair[::way] for pair in these))
                for mark in (right, copied) for way in (1, -1)))
        together = [pair for these in pairs for pair in these]
        found = outcomes.tally_pairs([given[i] for i, _ in some], [given[j] for _, j in some])
        changes = {"gained": Counter(), "lost": Counter(), "more": Counter(), "less": Counter()}
        size: Counter[str] = Counter(a["query"] for a, _ in together)
        for a, b in together:
            for mark, up, down in ((right, "gained", "lost"), (copied, "more", "less")):
                changes[up][a["query"]] += mark(a) > mark(b)
                changes[down][a["query"]] += mark(a) < mark(b)
        columns = {name: [count[query] for query in size] for name, count in changes.items()}
        assert found[:9] == (
            len(together), len({(a["seed"], a["example"]) for a, _ in together}), len(size),
            sum(right(a) for a, _ in together), sum(right(b) for _, b in together),
            sum(copied(a) for a, _ in together), sum(copied(b) for _, b in together),
            sum(columns["gained"]), sum(columns["lost"]))
        n = list(size.values())
        for sums_found, flips, up, down in (
                (found.pairs, found.flips, "gained", "lost"),
                (found.copied_pairs, found.copied_flips, "more", "less")):
            crossed = float(np.dot(columns[up], columns[down]))
            assert sums_found.tolist() == [*sums(n, columns[up], columns[down]), crossed]
            differences = Counter(x - y for x, y in zip(columns[up], columns[down], strict=True))
            assert dict(zip(flips.values, flips.counts, strict=True)) == differences
            assert flips.n == len(together)


def test_nothing_is_read_before_it_is_asked_for() -> None:
    def never() -> tuple[pa.Table, dict[str, pa.Table]]:
        raise AssertionError

    with pytest.raises(AssertionError):
        _ = Outcomes(never).summary
