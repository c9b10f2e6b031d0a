"""Which rules of choice find the cells that repair tasks which no search sees.

``python -m benchmarks.choice_transfer NAME=PROXIES.parquet,TASKS.parquet … [--picture FILE.png]``

Of each model, two maps of :mod:`benchmarks.cell_map`: of proxies on the search split, and of tasks
on the report split. Every rule chooses from the first; what its cell gains is read from the second,
the mean over tasks, with an interval by task and query. The best cell is chosen on one half of the
second map's queries and read on the other, and the reverse, so that it is no maximum of noise.
Prints a table, and draws both maps.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.copier_tables import markdown
from prunelib.interventions.ablation import Ablation
from prunelib.search.choice import Cell, Outcome, Rule, choose

PAPER = "vowel_counting"
#: Rules by name: the rule, and whether it sees the paper's proxy alone.
RULES: dict[str, tuple[Rule, bool]] = {
    "best, vowel counting (the paper's)": (Rule("best", nothing="excluded"), True),
    "smallest within error, vowel counting": (Rule("smallest_within_error"), True),
    "best, all proxies": (Rule("best"), False),
    "smallest within error, all proxies": (Rule("smallest_within_error"), False),
    "shared": (Rule("shared"), False),
    "shared, by margin": (Rule("shared", "margin"), False),
}

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Map:
    """Outcomes of every cell on every task.

    Attributes:
        cells: (layer, rate, digest of the intervention), the untouched model first.
        task: of each example, ``[examples]``.
        query: likewise.
        correct, copied, margin: ``[cells, examples]``.
    """

    about: dict[str, Any]
    cells: list[tuple[int, float, str]]
    task: NDArray[np.str_]
    query: NDArray[np.str_]
    correct: NDArray[np.bool_]
    copied: NDArray[np.bool_]
    margin: Array

    def gains(self, some: NDArray[np.bool_] | None = None) -> Array:
        """Gain of every cell in accuracy, each task with the same weight, ``[cells]``."""
        chosen = np.ones(len(self.task), bool) if some is None else some
        difference = self.correct[:, chosen].astype(float) - self.correct[0, chosen]
        tasks = self.task[chosen]
        return np.mean([difference[:, tasks == task].mean(1) for task in np.unique(tasks)], 0)

    def interval(self, cell: int, draws: int = 2000) -> tuple[float, float]:
        """95% interval of a cell's gain: queries are drawn again within each task (bootstrap)."""
        rng, found = np.random.default_rng(0), []
        difference = self.correct[cell].astype(float) - self.correct[0]
        for task in np.unique(self.task):
            here = self.task == task
            names = np.unique(self.query[here])
            sums = np.array([difference[here & (self.query == name)].sum() for name in names])
            sizes = np.array([(here & (self.query == name)).sum() for name in names])
            drawn = rng.integers(len(names), size=(draws, len(names)))
            found.append(sums[drawn].sum(1) / sizes[drawn].sum(1))
        low, high = np.quantile(np.mean(found, axis=0), (0.025, 0.975))
        return float(low), float(high)


def read(path: Path) -> Map:
    """A map from its file."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    cells = sorted({(row["rate"] > 0, row["layer"], row["rate"], row["intervention"])
                    for row in rows})
    by = {(row["layer"], row["rate"], row["task"]): row for row in rows}
    first = [by[cells[0][1], cells[0][2], task] for task in tasks]

    def joined(name: str) -> NDArray[Any]:
        return np.array([[value for task in tasks for value in by[layer, rate, task][name]]
                         for _, layer, rate, _ in cells])

    return Map(json.loads(table.schema.metadata[b"map"]), [cell[1:] for cell in cells],
               np.repeat(tasks, [len(row["queries"]) for row in first]),
               np.array([query for row in first for query in row["queries"]]),
               joined("correct"), joined("copied"), joined("margin").astype(float))


def chosen_by(rule: Rule, proxies: Map, alone: bool) -> int:
    """The cell that a rule takes, as its place in the map; 0 for nothing."""
    seen = proxies.task == PAPER if alone else np.ones(len(proxies.task), bool)
    cells = [Cell(proxies.correct[i, seen], proxies.copied[i, seen], proxies.margin[i, seen],
                  layer, rate, Ablation.of_layer(layer, [0]))
             for i, (layer, rate, _) in enumerate(proxies.cells) if i]
    found = choose(cells, rule, Outcome(proxies.correct[0, seen], proxies.copied[0, seen],
                                        proxies.margin[0, seen]),
                   np.unique(proxies.task[seen], return_inverse=True)[1])
    return 0 if found is None else 1 + next(i for i, c in enumerate(cells) if c is found)


def best_cells(tasks: Map) -> tuple[list[int], float]:
    """The best cell by either half of the queries, and what they gain in the other half."""
    names = np.unique(tasks.query)
    half = np.isin(tasks.query, np.random.default_rng(0).permutation(names)[::2])
    best = [int(np.argmax(tasks.gains(some))) for some in (half, ~half)]
    return best, float(np.mean([tasks.gains(~half)[best[0]], tasks.gains(half)[best[1]]]))


def compare(name: str, proxies: Map, tasks: Map) -> list[dict[str, Any]]:
    """A row for every rule, and for the best cell."""
    where = {cell[:2]: i for i, cell in enumerate(tasks.cells)}
    best, gain = best_cells(tasks)
    rows = [{"model": name, "rule": "best cell of the map, read on other queries",
             "cell": " or ".join(dict.fromkeys(_place(tasks, i) for i in best)), "gain": gain}]
    gains = tasks.gains()
    for rule, (settings, alone) in RULES.items():
        place = chosen_by(settings, proxies, alone)
        i = where[proxies.cells[place][:2]]
        low, high = tasks.interval(i)
        rows.append({"model": name, "rule": rule, "cell": _place(tasks, i),
                     "gain": float(gains[i]), "low": low, "high": high,
                     "copied": float(tasks.copied[i].mean() - tasks.copied[0].mean())})
    return rows


def _place(tasks: Map, i: int) -> str:
    layer, rate, _ = tasks.cells[i]
    return f"layer {layer}, {100 * rate:g}%" if i else "nothing"


def draw(maps: dict[str, tuple[Map, Map]], path: Path) -> None:
    """Gains of every cell, on the paper's proxy, on all proxies and on the tasks."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(maps), 3, figsize=(11, 1 + 2.2 * len(maps)), squeeze=False)
    for line, (name, (proxies, tasks)) in zip(axes, maps.items(), strict=True):
        titles = ("vowel counting", "all proxies", "tasks, which no search sees")
        found = (proxies.gains(proxies.task == PAPER), proxies.gains(), tasks.gains())
        for axis, title, gains in zip(line, titles, found, strict=True):
            layers = sorted({layer for layer, _, _ in tasks.cells[1:]})
            rates = sorted({rate for _, rate, _ in tasks.cells[1:]})
            grid = 100 * gains[1:].reshape(len(layers), len(rates)).T
            most = max(5.0, float(np.abs(grid).max()))
            image = axis.imshow(grid, aspect="auto", cmap="RdBu", vmin=-most, vmax=most,
                                origin="lower")
            axis.set(title=f"{name}: {title}", xlabel="layer", yticks=range(len(rates)),
                     yticklabels=[f"{100 * rate:g}%" for rate in rates])
            axis.title.set_fontsize(9)
            figure.colorbar(image, ax=axis, label="points")
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": ""})
    plt.close(figure)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = []
    for row in rows:
        best = next(r["gain"] for r in rows if r["model"] == row["model"])
        interval = "" if "low" not in row else (
            f" ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})")
        lines.append((row["model"], row["rule"], row["cell"],
                      f"{100 * row['gain']:+.1f}{interval}",
                      f"{100 * row['gain'] / best:.0f}%" if best > 0 else ""))
    return markdown(("model", "rule", "cell", "gain over tasks (95%)", "of the best"), lines)


def main() -> None:
    """Compare the rules on every model that is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("maps", nargs="+", metavar="NAME=PROXIES,TASKS")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    maps: dict[str, tuple[Map, Map]] = {}
    for given in options.maps:
        name, _, paths = given.partition("=")
        proxies, tasks = (read(Path(path)) for path in paths.split(","))
        if proxies.about["scores"] != tasks.about["scores"]:
            parser.error(f"{name}: the maps are of different rankings")
        maps[name] = proxies, tasks
    rows = [row for name, of in maps.items() for row in compare(name, *of)]
    if options.picture:
        draw(maps, options.picture)
    Console().print(table(rows))


if __name__ == "__main__":
    main()
