"""How often each rule of choice finds the right cell, and how often it rightly chooses none.

``python -m benchmarks.choice_rules [--searches 500]``

Searches are simulated: 32 layers × 8 rates (5% to 40%), as in the DSM paper. Its published sweeps
over rates give the true accuracy of one layer, for two data sets: BoolQ (75.2% untouched, at most
7.1 points more) and SST2 (88.9%, at most 3.3 more); at 5%, which is not published, half of the gain
at 10% is taken. What else the paper leaves open is assumed:

* Two neighbours on either side have half and a quarter of that gain. Every other layer loses, by a
  random slope of up to 10 points at 40%. In a third world no layer gains.
* An answer is right if its margin is positive. Margins are normal; those of an example under
  growing rates of a layer are a chain that starts at the untouched model's, each step with a
  correlation of 0.98. So on average 7% (SST2) or 11% of a cell's answers differ from the untouched
  model's.

The rules are those of :mod:`prunelib.search.choice`, and one that breaks ties by the smallest rate
and the first layer, as was usual here before.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.copier_tables import write_into
from prunelib.interventions.ablation import Ablation
from prunelib.search.choice import Cell, Outcome, Rule, choose

RESULT = Path(__file__).parent / "results" / "choice_rules.json"
DOCS = Path(__file__).parent.parent / "docs" / "results" / "choice.md"

RATES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
LAYERS = 32
EXAMPLES = (10, 100, 200)
#: Untouched accuracy and gain at each rate, in points (papers.md §2.3, Llama-3.1-8B-Instruct).
SWEEPS = {
    "BoolQ": (75.19, (2.8, 5.61, 6.27, 6.09, 5.71, 5.81, 7.13, 3.93)),
    "SST2": (88.87, (0.52, 1.05, 1.25, 2.58, 3.27, 3.18, 3.23, 1.25)),
    "no gain": (75.19, (0.0,) * 8),
}
#: Layers whose gain is a share of that of the layer which gains.
NEIGHBOURS = {0: 1.0, 1: 0.5, -1: 0.5, 2: 0.25, -2: 0.25}
#: Points that other layers lose at most at the largest rate.
LOSS = 10.0
#: Correlation of an example's margins from one rate to the next.
STEP = 0.98
#: Name in the table → rule; ``None``: the most right answers, the smallest rate, the first layer.
RULES: dict[str, Rule | None] = {
    "best, ties by rate and layer": None,
    "best": Rule("best", nothing="excluded"),
    "smallest within error": Rule("smallest_within_error", nothing="excluded"),
    "best by margin": Rule("best", "margin", "excluded"),
    "smallest within error by margin": Rule("smallest_within_error", "margin", "excluded"),
    "best or nothing": Rule("best"),
    "smallest within error or nothing": Rule("smallest_within_error"),
    "best by margin or nothing": Rule("best", "margin"),
    "smallest within error by margin or nothing": Rule("smallest_within_error", "margin"),
}


@dataclass(frozen=True)
class World:
    """True accuracies: of the untouched model, and of every cell ``[layers, rates]``."""

    untouched: float
    cells: NDArray[np.float64]
    layer: int


def world(name: str, rng: np.random.Generator) -> World:
    """A world with its own place of the layer that gains, and slopes of the others."""
    untouched, gains = SWEEPS[name]
    layer = int(rng.integers(2, LAYERS - 2))
    slopes = rng.uniform(0, LOSS, LAYERS)
    points = -slopes[:, None] * np.array(RATES) / RATES[-1]
    if any(gains):
        for step, share in NEIGHBOURS.items():
            points[layer + step] = share * np.array(gains)
    return World(untouched / 100, (untouched + points) / 100, layer)


def searched(truth: World, examples: int, rng: np.random.Generator
             ) -> tuple[list[Cell], Outcome]:
    """One search: every cell's answers, and the untouched model's."""
    quantile = np.vectorize(NormalDist().inv_cdf)
    first = rng.standard_normal(examples)
    chain = np.empty((LAYERS, len(RATES), examples))
    last = np.broadcast_to(first, (LAYERS, examples))
    for j in range(len(RATES)):
        last = STEP * last + np.sqrt(1 - STEP**2) * rng.standard_normal((LAYERS, examples))
        chain[:, j] = last
    margins = chain + quantile(truth.cells)[:, :, None]
    none = np.zeros(examples, dtype=bool)
    cells = [Cell(margins[i, j] > 0, none, margins[i, j], i, rate, ABLATIONS[i][j])
             for i in range(LAYERS) for j, rate in enumerate(RATES)]
    plain = first + quantile(truth.untouched)
    return cells, Outcome(plain > 0, none, plain)


#: Stand for the cells' ablations.
ABLATIONS = [[Ablation.of_layer(i, range(j + 1)) for j in range(len(RATES))]
             for i in range(LAYERS)]


def chosen(rule: Rule | None, cells: list[Cell], untouched: Outcome) -> Cell | None:
    """What a rule chooses."""
    if rule is None:
        return min(cells, key=lambda c: (-int(c.correct.sum()), c.rate, c.layer))
    return choose(cells, rule, untouched)


def simulated(name: str, examples: int, searches: int, seed: int = 0) -> list[dict[str, Any]]:
    """Every rule on the same searches of a world: shares, and true points gained or lost."""
    rng = np.random.default_rng([seed, list(SWEEPS).index(name), examples])
    found: dict[str, list[tuple[bool, bool, bool, float]]] = {rule: [] for rule in RULES}
    differ: list[float] = []
    for _ in range(searches):
        truth = world(name, rng)
        cells, untouched = searched(truth, examples, rng)
        differ.append(float(np.mean([c.correct != untouched.correct for c in cells])))
        best = max(truth.untouched, float(truth.cells.max()))
        for label, rule in RULES.items():
            cell = chosen(rule, cells, untouched)
            accuracy = (truth.untouched if cell is None
                        else float(truth.cells[cell.layer, RATES.index(cell.rate)]))
            found[label].append((cell is None, cell is not None and cell.layer == truth.layer,
                                 accuracy >= best - 0.01, 100 * (accuracy - truth.untouched)))
    return [{"world": name, "examples": examples, "rule": label,
             "differ": float(np.mean(differ)),
             **dict(zip(("nothing", "layer", "near_best", "gain"),
                        np.mean(values, axis=0).tolist(), strict=True))}
            for label, values in found.items()]


def page(results: list[dict[str, Any]]) -> str:
    """The tables of ``docs/results/choice.md``: one for each world."""
    blocks = []
    for name in SWEEPS:
        gains = any(SWEEPS[name][1])
        columns = ["rule", *(f"{what}, n = {n}" for n in EXAMPLES for what in (
            ("right layer", "gain") if gains else ("nothing", "gain")))]
        lines = [f"**{name}**", "", "| " + " | ".join(columns) + " |", "| --- " * 7 + "|"]
        for rule in RULES:
            of_rule = {r["examples"]: r for r in results
                       if r["world"] == name and r["rule"] == rule}
            values = [text for n in EXAMPLES for text in (
                f"{of_rule[n]['layer' if gains else 'nothing']:.0%}",
                f"{of_rule[n]['gain']:+.1f}")]
            lines.append("| " + " | ".join([rule, *values]) + " |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def show(results: list[dict[str, Any]]) -> None:
    """Print everything."""
    table = Table("world", "n", "rule", "nothing", "right layer", "within a point", "gain")
    for r in results:
        table.add_row(r["world"], str(r["examples"]), r["rule"], f"{r['nothing']:.1%}",
                      f"{r['layer']:.1%}", f"{r['near_best']:.1%}", f"{r['gain']:+.2f}")
    Console(width=120).print(table)


def main() -> None:
    """Print the tables; write them to ``benchmarks/results`` and ``docs``."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=500)
    searches = parser.parse_args().searches
    results = [row for name in SWEEPS for n in EXAMPLES for row in simulated(name, n, searches)]
    show(results)
    RESULT.write_text(json.dumps({"searches": searches, "results": results}, indent=1) + "\n")
    write_into(DOCS, page(results))


if __name__ == "__main__":
    main()
