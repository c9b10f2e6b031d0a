"""Where the error of an attribution is, and what removes it at which cost.

``python -m benchmarks.precision --model ID [--layers 1 8 16 24] [--truth 800]``

The truth of a layer is the mean over ``--truth`` prompts of vowel counting, each with four nodes
of its own. Every way to score is given other prompts, and is measured by its cost, forward and
backward passes of a prompt through the layers above, by the share of the truth's top 1% of
components that are in its own, and by the rank correlation with the truth. Each figure is the mean
over the layers. Writes docs/results/precision.md and benchmarks/results/precision.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats

from benchmarks.copier_tables import write_into
from prunelib.attribution import quadrature, shifted_nodes
from prunelib.attribution.aggregation import Aggregate, aggregate, overlap
from prunelib.attribution.integrated_gradients import (
    block_gradients,
    layer_path,
    layer_scores,
)
from prunelib.attribution.objectives.base import make_objective
from prunelib.attribution.scorers.gradient_activation import gradient_activation
from prunelib.attribution.scorers.iterated_path import ROUNDS, iterated_path_scores
from prunelib.models import Loaded, describe, load
from prunelib.recipe.attribution import ObjectiveSpec
from prunelib.search.selection import by_score, count_at
from prunelib.tasks import draw, get_task
from prunelib.tasks.tokenization import Encoded, encode

RESULT = Path(__file__).parent / "results" / "precision.json"
DOCS = Path(__file__).parent.parent / "docs" / "results" / "precision.md"
OBJECTIVE = make_objective(ObjectiveSpec())
#: Share of a layer that counts as its top.
TOP = 0.01
BLOCK = 25
#: Prompts of each way to score; the truth has others.
COUNTS = (12, 25, 50, 100, 200)

Array = NDArray[np.float64]


def each_score(loaded: Loaded, layer: int, prompts: list[Encoded]) -> Array:
    """Scores of every prompt by four nodes of its own, ``[prompts, components]``."""
    found = []
    for start in range(0, len(prompts), BLOCK):
        some = prompts[start : start + BLOCK]
        (part,) = block_gradients(
            loaded, layer_path(loaded, layer), some, OBJECTIVE,
            shifted_nodes.new_nodes(0, [shifted_nodes.shift(p.prompt) for p in some]),
            weights=shifted_nodes.rules(0))
        if part.each is not None:
            found.append(part.each[0])
    return np.concatenate(found)


def exact(loaded: Loaded, layer: int, prompts: list[Encoded], tolerance: float
          ) -> tuple[Array, int]:
    """Scores by the same nodes for every prompt, to a tolerance, and how many nodes that takes."""
    parts = []
    for level, nodes in enumerate(quadrature.NODES):
        parts.append(block_gradients(loaded, layer_path(loaded, layer), prompts, OBJECTIVE,
                                     quadrature.new_nodes(level))[0])
        found = layer_scores([parts], level)
        if found.error <= tolerance or nodes >= 65:
            break
    return found.scores, nodes


def ways(loaded: Loaded, layer: int, prompts: list[Encoded], queries: list[str]
         ) -> Iterator[tuple[str, int, float, Array]]:
    """(way, prompts, cost, scores) of every way to score a layer."""
    each = each_score(loaded, layer, prompts)
    for count in COUNTS:
        for how in ("mean", "trimmed"):
            kind: Aggregate = how  # type: ignore[assignment]
            yield (f"4 own nodes, {how}", count, 4 * count,
                   aggregate(each[:count], queries[:count], kind).scores)
    for count in COUNTS[:2]:
        scores, nodes = exact(loaded, layer, prompts[:count], 0.02)
        yield "same nodes, to 2%", count, nodes * count, scores
    for count in COUNTS[2:]:
        yield ("gradient × activation", count, count, gradient_activation(
            loaded, layer_path(loaded, layer), prompts[:count], OBJECTIVE)[0].mean(0))
    for count in COUNTS[:2]:
        yield ("iterated path", count, (ROUNDS + quadrature.NODES[0]) * count,
               iterated_path_scores(loaded, layer, prompts[:count], OBJECTIVE))


def of_layer(model: str, layer: int, truth: int) -> list[dict[str, Any]]:
    """Rows of one layer."""
    import torch

    torch.set_num_threads(1)
    loaded = load(describe(model))
    examples = draw(get_task("vowel_counting"), split="attribute", shots=3, seed=0,
                    count=max(COUNTS) + truth)
    prompts = [encode(example, loaded.tokenizer) for example in examples]
    queries = [example.query for example in examples]
    few, many = slice(max(COUNTS)), slice(max(COUNTS), None)
    known = each_score(loaded, layer, prompts[many])
    right = known.mean(0)
    top = count_at(TOP, len(right))
    best = set(by_score(right)[:top])
    sure = aggregate(known, queries[many], "mean").sampling_error
    rows = [{"layer": layer, "way": way, "prompts": count, "cost": cost,
             "found": len(best & set(by_score(scores)[:top])) / top,
             "spearman": float(stats.spearmanr(scores, right).statistic),
             "truth_error": sure}
            for way, count, cost, scores in ways(loaded, layer, prompts[few], queries[few])]
    for half in (c // 2 for c in (2 * 12, 2 * 25, 2 * 50, 2 * 100, truth) if c <= truth):
        for how in ("mean", "trimmed"):
            rows.append({"layer": layer, "way": f"halves, {how}", "prompts": half, "cost": 4 * half,
                         "found": overlap(known[: 2 * half], queries[many][: 2 * half], how,  # type: ignore[arg-type]
                                          by_score, [top])})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Means over layers, as Markdown."""
    lines = ["| way | prompts | passes | top 1% of the truth found | rank correlation |",
             "| --- | --- | --- | --- | --- |"]
    for way, count in dict.fromkeys((row["way"], row["prompts"]) for row in rows):
        some = [row for row in rows if (row["way"], row["prompts"]) == (way, count)]
        spearman = [row["spearman"] for row in some if "spearman" in row]
        lines.append(f"| {way} | {count} | {np.mean([r['cost'] for r in some]):.0f} | "
                     f"{np.mean([r['found'] for r in some]):.2f} | "
                     f"{f'{np.mean(spearman):.2f}' if spearman else ''} |")
    return "\n".join(lines)


def main() -> None:
    """Score the layers, two at a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--model", required=True)
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 8, 16, 24])
    parser.add_argument("--truth", type=int, default=800)
    given = parser.parse_args()
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        rows = [row for of_one in pool.map(
            of_layer, *zip(*((given.model, layer, given.truth) for layer in given.layers),
                           strict=True)) for row in of_one]
    about = {"model": describe(given.model).id, "truth": given.truth, "rows": rows}
    RESULT.write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    write_into(DOCS, table(rows))
    Console().print(table(rows))


if __name__ == "__main__":
    main()
