"""What the prompts of an attribution and what its nodes decide, at which cost.

``python -m benchmarks.precision --results DIR --model ID``

First: how many of the planted neurons of four reference copiers each way to score finds (recall at
K, in their layer, prompts of the paper's proxy and of the mixture ``varied_copying``), against its
cost, forward and backward passes of a prompt through the layers above. Second: on what share of the
top 1% two disjoint halves of a real model's prompts agree, mean over its layers, from the table
``prompt_scores`` of a finished run in DIR that attributed ``--model`` on vowel counting at 3 shots.
Writes docs/results/precision.md and benchmarks/results/precision.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.copier_tables import markdown, write_into
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
from prunelib.results.storage.store import Store
from prunelib.search.selection import by_score, count_at
from prunelib.tasks import draw, get_task
from prunelib.tasks.tokenization import Encoded, encode

RESULT = Path(__file__).parent / "results" / "precision.json"
DOCS = Path(__file__).parent.parent / "docs" / "results" / "precision.md"
OBJECTIVE = make_objective(ObjectiveSpec())
COPIERS = ("llama", "gpt2", "bloom", "opt")
PROXIES = ("vowel_counting", "varied_copying")
#: Share of a layer that counts as its top.
TOP = 0.01
COUNTS = (12, 25, 50, 100)
SHARES: tuple[Aggregate, ...] = ("mean", "trimmed")

Array = NDArray[np.float64]


def prompts_of(loaded: Loaded, proxy: str) -> tuple[list[Encoded], list[str]]:
    """Prompts that are attributed, and their queries."""
    examples = draw(get_task(proxy), split="attribute", shots=3, seed=0, count=max(COUNTS))
    return [encode(e, loaded.tokenizer) for e in examples], [e.query for e in examples]


def each_score(loaded: Loaded, layer: int, prompts: list[Encoded]) -> Array:
    """Scores of every prompt by four nodes of its own, ``[prompts, components]``."""
    (found,) = block_gradients(
        loaded, layer_path(loaded, layer), prompts, OBJECTIVE,
        shifted_nodes.new_nodes(0, [shifted_nodes.shift(p.prompt) for p in prompts]),
        weights=shifted_nodes.rules(0))
    return np.zeros((0, 0)) if found.each is None else found.each[0]


def exact(loaded: Loaded, layer: int, prompts: list[Encoded]) -> tuple[Array, int]:
    """Scores by the same nodes for every prompt, to 2%, and how many nodes that takes."""
    parts = []
    for level in range(len(quadrature.NODES)):
        parts.append(block_gradients(loaded, layer_path(loaded, layer), prompts, OBJECTIVE,
                                     quadrature.new_nodes(level))[0])
        found = layer_scores([parts], level)
        if found.error <= 0.02:
            break
    return found.scores, quadrature.NODES[level]


def ways(loaded: Loaded, layer: int, prompts: list[Encoded], queries: list[str]
         ) -> Iterator[tuple[str, int, float, Array]]:
    """(way, prompts, cost, scores) of every way to score a layer."""
    each = each_score(loaded, layer, prompts)
    for how in SHARES:
        for count in COUNTS:
            yield (f"4 own nodes, {how}", count, 4 * count,
                   aggregate(each[:count], queries[:count], how).scores)
    for count in COUNTS[:2]:
        scores, nodes = exact(loaded, layer, prompts[:count])
        yield "same nodes, to 2%", count, nodes * count, scores
    for count in COUNTS[2:]:
        yield ("gradient × activation", count, count, gradient_activation(
            loaded, layer_path(loaded, layer), prompts[:count], OBJECTIVE)[0].mean(0))
    for count in COUNTS[:2]:
        yield ("iterated path", count, (ROUNDS + quadrature.NODES[0]) * count,
               iterated_path_scores(loaded, layer, prompts[:count], OBJECTIVE))


def recalls(family: str) -> Iterator[dict[str, Any]]:
    """Rows of one copier: what each way finds of its planted neurons."""
    loaded = load(describe(f"reference/{family}-copier"))
    planted = json.loads((Path(loaded.info.path) / "planted.json").read_text("utf-8"))
    known, layer = set(planted["neurons"]), planted["layer"]
    for proxy in PROXIES:
        for way, count, cost, scores in ways(loaded, layer, *prompts_of(loaded, proxy)):
            found = len(known & set(by_score(scores)[: len(known)])) / len(known)
            yield {"family": family, "proxy": proxy, "way": way, "prompts": count, "cost": cost,
                   "recall": found}


def halves(results: Path, model: str) -> Iterator[dict[str, Any]]:
    """Rows of a run's layers: what two halves of its prompts agree on."""
    table = Store.open(results, create=False).read("prompt_scores")
    keep = np.flatnonzero((np.array(table["model"]) == model) & (np.array(table["level"]) == 0))
    layers, examples = np.array(table["layer"])[keep], np.array(table["example"])[keep]
    drawn = draw(get_task("vowel_counting"), split="attribute", shots=3, seed=0,
                 count=int(examples.max()) + 1)
    queries = {example.example: example.query for example in drawn}
    for layer in np.unique(layers):
        here = keep[layers == layer]
        here = here[np.argsort(examples[layers == layer])]
        each = np.stack([np.asarray(table["scores"][int(i)].values, np.float64) for i in here])
        asked = [queries[int(table["example"][int(i)].as_py())] for i in here]
        top = count_at(TOP, each.shape[1])
        for count in (c for c in COUNTS if 2 * c <= len(each)):
            for how in SHARES:
                yield {"layer": int(layer), "way": how, "prompts": count,
                       "overlap": overlap(each[: 2 * count], asked[: 2 * count], how, by_score,
                                          [top])}


def tables(found: Sequence[dict[str, Any]], agreed: Sequence[dict[str, Any]], model: str) -> str:
    """Both tables as Markdown."""
    recall = []
    for proxy, way, count in dict.fromkeys((r["proxy"], r["way"], r["prompts"]) for r in found):
        some = [r for r in found if (r["proxy"], r["way"], r["prompts"]) == (proxy, way, count)]
        recall.append((way, str(count), f"{fmean(r['cost'] for r in some):.0f}", proxy,
                       *(f"{r['recall']:.2f}" for r in some),
                       f"{fmean(r['recall'] for r in some):.2f}"))
    shared = []
    for count in dict.fromkeys(r["prompts"] for r in agreed):
        mean, trimmed = (np.array([r["overlap"] for r in agreed
                                   if (r["prompts"], r["way"]) == (count, how)]) for how in SHARES)
        gap = trimmed - mean
        shared.append((str(count), f"{mean.mean():.2f}", f"{trimmed.mean():.2f}",
                       f"{gap.mean():+.2f} ± {gap.std(ddof=1) / len(gap) ** 0.5:.2f}"))
    return "\n\n".join((
        markdown(("way to score", "prompts", "passes", "proxy", *COPIERS, "mean"), recall),
        f"**{model}, all layers**",
        markdown(("prompts in each half", "mean", "trimmed mean", "difference ± standard error"),
                 shared)))


def main() -> None:
    """Score the copiers, read the run, write the page."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--model", required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    agreed = list(halves(given.results, given.model))
    found = [row for family in COPIERS for row in recalls(family)]
    RESULT.write_text(json.dumps({"recall": found, "halves": agreed}, indent=1) + "\n", "utf-8")
    text = tables(found, agreed, given.model)
    write_into(DOCS, text)
    Console().print(text)


if __name__ == "__main__":
    main()
