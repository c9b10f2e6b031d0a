"""How often 95% intervals hold the truth, and how often tests reject what is true: by simulation.

``python -m benchmarks.coverage [--data-sets 2000]``

Each table has the rule of formulas.md §7 (*new*) beside what the views did before (*old*): every
answer taken as independent, percentile bootstraps, exact McNemar tests, random sets as given.
Writes ``benchmarks/results/coverage.json`` and the tables of ``docs/results/statistics.md``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import binom

from prunelib.scoring.statistics import (
    LEVEL,
    difference_intervals,
    drawn_interval,
    mean_interval,
    share_intervals,
    sign_flip_p,
    wilson,
)

RESULT = Path(__file__).parent / "results" / "coverage.json"
PAGE = Path(__file__).parents[1] / "docs" / "results" / "statistics.md"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
SHARES = (0.02, 0.1, 0.5, 0.9, 0.98)

Array = NDArray[Any]
Rng = np.random.Generator
Rule = Callable[..., float]


def sums_of(n: Array, *counts: Array) -> Array:
    """Sums over clusters of data sets: ``n`` and each of ``counts`` are (data sets, clusters)."""
    size = np.broadcast_to(n, counts[0].shape).astype(float)
    found = [np.full(len(size), size.shape[1], float), size.sum(1), (size * size).sum(1)]
    for count in counts:
        found += [count.sum(1), (count * count).sum(1), (size * count).sum(1)]
    if len(counts) == 2:
        found.append((counts[0] * counts[1]).sum(1))
    return np.stack(found, 1)


def held(interval: tuple[Array, Array], truth: float) -> float:
    """Share of intervals that hold the truth."""
    low, high = interval
    return float(((low <= truth + 1e-12) & (truth <= high + 1e-12)).mean())


def exact_coverage(share: float, n: int) -> tuple[float, float]:
    """Coverage of Wilson's interval of n independent answers, and the best that can be had.

    The best is inside 93% to 98% if any interval's is, else as near to that as can be.
    """
    chance = binom.pmf(np.arange(n + 1), n, share)
    low, high = wilson(np.arange(n + 1) / n, n)
    found = float(chance[(low <= share) & (share <= high)].sum())
    ends = np.concatenate([[0], np.cumsum(chance)])
    possible = np.unique(np.subtract.outer(ends, ends))
    outside = np.maximum(0, np.maximum(0.93 - possible, possible - 0.98))
    best = possible[outside <= outside.min() + 1e-12]
    return found, float(best[np.abs(best - found).argmin()])


def clustered(rng: Rng, data_sets: int, clusters: int, size: int, share: float, icc: float
              ) -> tuple[Array, Array]:
    """Answers and right answers of clusters: the chance of a right one is beta over queries.

    ``icc`` is the correlation of two answers to one query; ``size`` 0 stands for 1 to 8 answers.
    """
    n = rng.integers(1, 9, clusters) if size == 0 else np.full(clusters, size)
    odds = (1 - icc) / icc if icc else 0.0
    shape = (data_sets, clusters)
    chance: Any = rng.beta(share * odds, (1 - share) * odds, shape) if icc else share
    return n, rng.binomial(n, chance, shape)


def share_coverage(rng: Rng, data_sets: int, clusters: int, size: int, icc: float,
                   shares: Sequence[float]) -> tuple[float, float]:
    """Coverage for a mean over one task per share: new, and Wilson on all answers as one sample."""
    parts, answers, right = [], 0.0, np.zeros(data_sets)
    for share in shares:
        n, x = clustered(rng, data_sets, clusters, size, share, icc)
        parts.append(sums_of(n, x))
        answers, right = answers + n.sum(), right + x.sum(1)
    rows = np.tile(np.arange(data_sets), len(shares))
    truth = float(np.mean(shares))
    return (held(share_intervals(np.concatenate(parts), rows), truth),
            held(wilson(right / answers, answers), truth))


def pair_coverage(rng: Rng, data_sets: int, clusters: int, size: int, icc: float,
                  changes: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Coverage for a difference: new, and a percentile bootstrap over pairs.

    ``changes``: of each task the shares of pairs that are gained and lost.
    """
    parts, drawn = [], np.zeros((200, min(data_sets, 500)))
    for gained, lost in changes:
        n = rng.integers(1, 9, clusters) if size == 0 else np.full(clusters, size)
        cells: Any = np.array([gained, lost, 1 - gained - lost])
        if icc:
            cells = rng.dirichlet(np.maximum(cells, 1e-9) * (1 - icc) / icc, (data_sets, clusters))
        found = rng.multinomial(np.broadcast_to(n, (data_sets, clusters)), cells)
        parts.append(sums_of(n, found[..., 0], found[..., 1]))
        total = found.sum(1)[: drawn.shape[1]]
        again = rng.multinomial(n.sum(), total / n.sum(), (200, len(total)))
        drawn += (again[..., 0] - again[..., 1]) / n.sum() / len(changes)
    rows = np.tile(np.arange(data_sets), len(changes))
    truth = float(np.mean([gained - lost for gained, lost in changes]))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return (held(difference_intervals(np.concatenate(parts), rows), truth),
            held((low, high), truth))


def set_coverage(rng: Rng, data_sets: int, queries: int, sets: int, changed: float, sd: float
                 ) -> tuple[float, float]:
    """Coverage for the difference to random sets: new, and the sets taken as given.

    Every set changes so many answers of a model that is right half the time, and moves its
    accuracy by a normal amount with standard deviation ``sd``; so does the choice, by 0.
    """
    base = rng.random((data_sets, queries)) < 0.5

    def answers(moved: Array) -> Array:
        chance = rng.random(base.shape)
        up = np.clip(changed + 2 * moved, 0, 1)[:, None]
        down = np.clip(changed - 2 * moved, 0, 1)[:, None]
        return np.where(base, chance >= down, chance < up)

    ours = answers(np.zeros(data_sets))
    others = [answers(rng.normal(0, sd, data_sets)) for _ in range(sets)]
    gained = np.sum([ours & ~other for other in others], axis=0)
    lost = np.sum([~ours & other for other in others], axis=0)
    sums, rows = sums_of(np.full(queries, sets), gained, lost), np.arange(data_sets)
    of_sets = np.array([ours.mean(1) - other.mean(1) for other in others])
    given = difference_intervals(sums, rows)
    return (held(drawn_interval(of_sets.mean(0), given, of_sets.std(0, ddof=1), sets), 0.0),
            held(given, 0.0))


def task_coverage(rng: Rng, data_sets: int, tasks: int, skewed: bool) -> tuple[float, float]:
    """Coverage for new tasks: Student's t, and a percentile bootstrap over tasks.

    Effects of tasks are normal, or 0.3 in one task of five and 0 in the others; 50 answers each.
    """
    effects = (0.3 * (rng.random((data_sets, tasks)) < 0.2) if skewed
               else rng.normal(0.06, 0.1, (data_sets, tasks)))
    found = effects + rng.normal(0, 0.05, effects.shape)
    mean = found.mean(1)
    resampled = found[np.arange(data_sets)[:, None, None],
                      rng.integers(0, tasks, (data_sets, 200, tasks))].mean(2)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=1)
    return (held(mean_interval(mean, found.std(1, ddof=1), tasks), 0.06), held((low, high), 0.06))


def rejections(rng: Rng, data_sets: int, pool: int, asked: int, changed: float, alike: float
               ) -> tuple[float, float]:
    """How often p < 0.05 where gains and losses are equally likely: new, and exact McNemar.

    ``asked`` prompts go round a pool of queries. A query changes with chance ``changed``, then each
    of its answers does with chance ``alike``, all in one direction.
    """
    n = np.full(pool, asked // pool) + (np.arange(pool) < asked % pool)
    direction = rng.choice([-1, 1], (data_sets, pool)) * (rng.random((data_sets, pool)) < changed)
    differences = direction * rng.binomial(n, alike, (data_sets, pool))
    gained, lost = differences.clip(0).sum(1), (-differences).clip(0).sum(1)
    old = np.minimum(1, 2 * binom.cdf(np.minimum(gained, lost), gained + lost, 0.5))
    new = [sign_flip_p(*np.unique(line, return_counts=True)) for line in differences]
    return float(np.mean(np.array(new) < 1 - LEVEL)), float((old < 1 - LEVEL).mean())


def measure(data_sets: int) -> dict[str, list[dict[str, Any]]]:
    """All tables."""
    rng = np.random.default_rng(0)
    exact = [{"n": n, **{f"{p:g}": exact_coverage(p, n)[0] for p in SHARES}}
             for n in (10, 20, 50, 100, 200, 400)]

    def rows(names: str, rule: Rule, cases: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
        found = []
        for case in cases:
            new, old = rule(rng, data_sets, *case)  # type: ignore[misc]
            found.append({**dict(zip(names.split(), case, strict=True)), "new": new, "old": old})
        return found

    layouts = [(10, 4, 0.3), (25, 8, 0.3), (50, 4, 0.1), (50, 0, 0.5), (100, 8, 0.5), (400, 4, 0.3)]
    return {
        "exact": exact,
        "shares": rows("queries answers icc shares", share_coverage, [
            (*layout, shares) for layout in layouts
            for shares in ((0.02,), (0.5,), (0.9,), (0.02, 0.1, 0.5, 0.9, 0.98))]),
        "differences": rows("queries answers icc changes", pair_coverage, [
            (*layout, changes) for layout in [(50, 1, 0.0), *layouts[1:]]
            for changes in (((0.02, 0.0),), ((0.1, 0.02),), ((0.2, 0.2),),
                            ((0.02, 0.0), (0.3, 0.05), (0.0, 0.1)))]),
        "sets": rows("queries sets changed sd", set_coverage, [
            (queries, sets, 0.05, sd) for queries in (200, 1000) for sets in (3, 5, 20)
            for sd in (0.0, 0.005, 0.02)]),
        "tasks": rows("tasks skewed", task_coverage, [
            (tasks, skewed) for skewed in (False, True) for tasks in (5, 10, 20)]),
        "rejections": rows("pool asked changed alike", rejections, [
            (pool, 100 if pool < 100 else 200, changed, alike) for pool in (11, 14, 52, 66, 200)
            for changed, alike in ((0.1, 1.0), (0.5, 1.0), (0.5, 0.6))]),
    }


#: Table → its heading.
TITLES = {
    "exact": "A share of n independent answers (exact)",
    "shares": "Shares, clustered (several: mean over tasks)",
    "differences": "Paired differences (gained, lost)",
    "sets": "Difference to random sets",
    "tasks": "Difference for new tasks",
    "rejections": "True hypotheses rejected at 5%",
}


def shown(value: Any) -> str:
    """A cell: figures between 0 and 1 that were measured are per cent."""
    if isinstance(value, tuple | list):
        return "; ".join(", ".join(f"{v:g}" for v in part) if isinstance(part, tuple | list)
                         else f"{part:g}" for part in value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value:g}"


def lines(name: str, table: list[dict[str, Any]]) -> list[list[str]]:
    """The head and the rows of a table."""
    measured = {f"{p:g}" for p in SHARES} if name == "exact" else {"new", "old"}
    return [list(table[0]), *[[f"{100 * v:.1f}%" if k in measured else
                               "1 to 8" if k == "answers" and v == 0 else shown(v)
                               for k, v in row.items()] for row in table]]


def page(results: dict[str, list[dict[str, Any]]]) -> str:
    """The tables in Markdown."""
    parts = []
    for name, title in TITLES.items():
        head, *body = lines(name, results[name])
        rows = [head, ["---"] * len(head), *body]
        parts.append(f"### {title}\n\n" + "\n".join("| " + " | ".join(r) + " |" for r in rows))
    return "\n\n".join(parts)


def main() -> None:
    """Print the tables, write them to ``benchmarks/results`` and to the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-sets", type=int, default=2000)
    results = json.loads(json.dumps(measure(parser.parse_args().data_sets)))
    RESULT.write_text(json.dumps(results, indent=1) + "\n")
    for name, title in TITLES.items():
        head, *body = lines(name, results[name])
        table = Table(*head, title=title)
        for row in body:
            table.add_row(*row)
        Console().print(table)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{page(results)}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
