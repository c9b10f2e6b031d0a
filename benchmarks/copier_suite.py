"""Which scorer finds planted copiers, wherever they sit: every scorer on the copier suite.

    python -m benchmarks.copier_suite                    # the report half, on the CPU
    python -m benchmarks.copier_suite --half development
    python -m benchmarks.copier_suite --tables           # only the tables, from the JSON

Every copier is rebuilt, scored by every scorer, and repaired by the ordinary grid and choice rule.
What is in the results already is not measured again. The tables of
``docs/results/copier-suite.md`` are written from the JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.copier_tables import tables, write_into
from prunelib.attribution import quadrature
from prunelib.attribution.gates import gated
from prunelib.attribution.integrated_gradients import block_gradients, layer_path, layer_scores
from prunelib.attribution.objectives.base import Objective, make_objective
from prunelib.attribution.scorers.base import load_scorer
from prunelib.attribution.scorers.iterated_path import ROUNDS, iterated_path_scores
from prunelib.interventions.ablation import BASELINE, Ablation, ActivationMasks
from prunelib.models import Loaded, describe, load, planted_neurons
from prunelib.recipe.attribution import ObjectiveSpec
from prunelib.reference.corpus import copies, one_character
from prunelib.reference.suite import SUITE, Half, Member, members, write_copier
from prunelib.reference.train import accuracy
from prunelib.search.choice import Cell, Rule, choose
from prunelib.search.grid import greedy_rows
from prunelib.search.selection import by_score, cut, random_order
from prunelib.tasks import Split, draw, get_task, task_names
from prunelib.tasks.tokenization import Encoded, encode

Array = NDArray[np.float64]
RESULTS = Path(__file__).parent / "results" / "copier_suite.json"
DOCS = Path(__file__).parent.parent / "docs" / "results" / "copier-suite.md"
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4)
COPY_SHIFT = make_objective(ObjectiveSpec())
VOWELS = ("vowel_counting",)
#: Proxies whose answers are letters and digits; no gold answer is in its prompt.
VARIED = ("vowel_counting", "list_last", "to_upper", "next_letter", "list_max")
TASKS = [get_task(name) for name in task_names("reference")]
COPIED = [task for task in TASKS if one_character(task)]
#: Tasks that the copiers spoil and that are no proxy.
UNSEEN = [task for task in COPIED if task.name not in VARIED]
#: Prompts that a scorer sees.
PROMPTS = 50
#: Quadrature level of integrated gradients: 17 nodes, and the prompts of one pass.
LEVEL, BLOCK = 1, 25


def gold_loss(logits: torch.Tensor, prompts: Sequence[Encoded]) -> torch.Tensor:
    """−log p(gold answer), ``[rows]``."""
    gold = [prompt.first_gold for prompt in prompts]
    return -logits.float().log_softmax(-1)[range(len(prompts)), gold]


def draw_prompts(loaded: Loaded, names: Sequence[str], split: Split, count: int, seed: int = 0
                 ) -> list[Encoded]:
    """``count`` prompts of several tasks at 3 shots, equally many of each, in seeded order."""
    found = []
    for name in names:
        free = [e for e in draw(get_task(name), split=split, shots=3, seed=seed, count=4 * count)
                if e.gold not in e.answers]
        found += [encode(e, loaded.tokenizer) for e in free[: count // len(names)]]
    random.Random(seed).shuffle(found)
    return found


@dataclass(frozen=True)
class Case:
    """A copier in memory, with the prompts of both kinds of proxy."""

    loaded: Loaded
    layer: int
    planted: list[int]
    vowels: list[Encoded]
    varied: list[Encoded]


def integrated(case: Case, layer: int, prompts: list[Encoded]) -> tuple[Array, int]:
    """The papers' method: scores and passes."""
    path = layer_path(case.loaded, layer)
    blocks = [[block_gradients(case.loaded, path, prompts[i : i + BLOCK], COPY_SHIFT,
                               quadrature.new_nodes(level))[0] for level in range(LEVEL + 1)]
              for i in range(0, len(prompts), BLOCK)]
    return layer_scores(blocks, LEVEL).scores, quadrature.NODES[LEVEL] * len(prompts)


def iterated(case: Case, layer: int, prompts: list[Encoded]) -> tuple[Array, int]:
    """Iterated path attribution: scores and passes."""
    passes = (ROUNDS + quadrature.NODES[0]) * len(prompts)
    return iterated_path_scores(case.loaded, layer, prompts, COPY_SHIFT), passes


def gradient_activation(case: Case, layer: int, prompts: list[Encoded]) -> tuple[Array, int]:
    """Gradient with respect to the gates at normal operation: gradient × activation."""
    with gated(case.loaded, layer, prompts, COPY_SHIFT) as gradient:
        return gradient(np.ones(case.loaded.info.width))[1], len(prompts)


def cheap(name: str, passes: int) -> Callable[[Case, int, list[Encoded]], tuple[Array, int]]:
    """One of the scorers that differentiate nothing, with the passes that a prompt costs."""

    def score(case: Case, layer: int, prompts: list[Encoded]) -> tuple[Array, int]:
        path = layer_path(case.loaded, layer)
        scores = load_scorer(name)(case.loaded, path, prompts, COPY_SHIFT, BLOCK)[0]
        scores = scores.mean(0) if scores.ndim == 2 else scores
        return scores, passes * len(prompts)

    return score


def at_random(case: Case, layer: int, prompts: list[Encoded]) -> tuple[Array, int]:
    """A random order, as scores."""
    scores = np.zeros(case.loaded.info.width)
    scores[list(random_order(len(scores), layer, 0))] = -np.arange(len(scores), dtype=float)
    return scores, 0


@dataclass(frozen=True)
class Scorer:
    """A way to score a layer; ``repair`` if all layers are scored and the grid is searched."""

    score: Callable[[Case, int, list[Encoded]], tuple[Array, int]]
    varied: bool = False
    repair: bool = True


SCORERS = {
    "integrated gradients": Scorer(integrated),
    "iterated path, varied proxies": Scorer(iterated, varied=True),
    "activation magnitude": Scorer(cheap("activation", 1)),
    "weight magnitude": Scorer(cheap("weight", 0)),
    "Wanda": Scorer(cheap("wanda", 1)),
    "random": Scorer(at_random),
    "integrated gradients, varied proxies": Scorer(integrated, varied=True),
    "iterated path": Scorer(iterated, repair=False),
    "gradient × activation": Scorer(gradient_activation, repair=False),
    "gradient × activation, varied proxies": Scorer(gradient_activation, varied=True,
                                                    repair=False),
}


def neuron_effects(case: Case, rule: Any) -> Array:
    """What each planted neuron adds to the harm, ``[planted]``: the weights of recall.

    Harm is −log p(gold answer) on all tasks that the rule spoils. The neurons' shares in it are
    their Aumann–Shapley values: the gradient with respect to each gate, integrated along the path
    that opens the gates of the planted neurons, and of no other, from 0 to 1 together. They add up
    to the harm of all. Neurons that mend more than they harm count as 0.
    """
    prompts = [encode(e, case.loaded.tokenizer) for task in COPIED
               for e in draw(task, split="report", shots=3, seed=7, count=4)
               if e.gold not in copies(rule, e.answers)]
    nodes, weights = np.polynomial.legendre.leggauss(10)
    found = np.zeros(case.loaded.info.width)
    with gated(case.loaded, case.layer, prompts, Objective(gold_loss)) as gradient:
        for alpha, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            gates = np.ones(len(found))
            gates[case.planted] = alpha
            found += weight * gradient(gates)[1]
    return np.maximum(found[case.planted], 0)


def grid(case: Case, scores: Mapping[int, Array], proxies: Sequence[str], examples: int
         ) -> Ablation:
    """The ablation that the ordinary search chooses, on the proxies' search split."""
    loaded = case.loaded
    prompts = draw_prompts(loaded, proxies, "search", examples)
    stop = [loaded.tokenizer.convert_tokens_to_ids("\n")]
    cells = []
    for layer, found in scores.items():
        order = by_score(found)
        ablations = [cut(layer, order, rate, len(order), loaded.info.site) for rate in RATES]
        said = greedy_rows(loaded, layer, ablations, prompts, 1, stop)
        for rate, ablation, answers, margin in zip(RATES, ablations, said.tokens, said.margins,
                                                   strict=True):
            first = [answer[0] if answer else -1 for answer in answers]
            cells.append(Cell(
                np.array([f == p.first_gold for f, p in zip(first, prompts, strict=True)]),
                np.array([f in p.first_copies for f, p in zip(first, prompts, strict=True)]),
                margin, layer, rate, ablation))
    choice = choose(cells, Rule("smallest_within_error", nothing="excluded"))
    assert choice is not None
    return choice.ablation


def repaired(case: Case, ablation: Ablation, count: int) -> dict[str, float]:
    """Mean accuracy over all tasks, and over those spoiled ones that no proxy shows."""
    with ActivationMasks(case.loaded) as masks:
        masks.set(ablation)
        shares = accuracy(case.loaded.model, TASKS, shots=3, count=count)
    return {"all": float(np.mean(list(shares.values()))),
            "unseen": float(np.mean([shares[task.name] for task in UNSEEN]))}


def open_case(member: Member, folder: Path, base: Path | None) -> Case:
    """Rebuild a copier and draw its prompts."""
    write_copier(member, folder, base)
    info = describe(str(folder))
    loaded = load(info)
    return Case(loaded, member.recipe.layer, [neuron for _, neuron in planted_neurons(info)],
                draw_prompts(loaded, VOWELS, "attribute", PROMPTS),
                draw_prompts(loaded, VARIED, "attribute", PROMPTS))


def measure(case: Case, member: Member, found: dict[str, Any], options: argparse.Namespace
            ) -> None:
    """Add to a copier's figures what is missing of them."""
    effects = neuron_effects(case, member.recipe.rule)
    if not found:
        exact = Ablation.of_layer(case.layer, case.planted, case.loaded.info.site)
        half = int((np.sort(effects)[::-1].cumsum() < effects.sum() / 2).sum()) + 1
        found |= {
            "family": member.family, "half": member.half, "layer": case.layer,
            "rule": member.recipe.rule, "neurons": member.recipe.neurons,
            "norms": member.recipe.norms,
            "shares": json.loads((SUITE / f"{member.name}.json").read_text())["shares"],
            "harm": float(effects.sum()), "half_of_harm_by": half,
            "copier": repaired(case, BASELINE, options.count),
            "exact": repaired(case, exact, options.count), "scorers": {},
        }  # fmt: skip
    for name in missing(found):
        entry = found["scorers"][name] = outcome(case, SCORERS[name], effects, options)
        print(f"  {name:<40} recall {entry['weighted_recall']:.2f} {entry.get('accuracy')}",
              flush=True)


def missing(found: Mapping[str, Any]) -> list[str]:
    """Scorers that a copier's figures lack."""
    known = found.get("scorers", {})
    return [name for name, scorer in SCORERS.items()
            if name not in known or (scorer.repair and "accuracy" not in known[name])]


def outcome(case: Case, scorer: Scorer, effects: Array, options: argparse.Namespace
            ) -> dict[str, Any]:
    """Recall and cost of a scorer in the planted layer, and what its repair reaches."""
    prompts = case.varied if scorer.varied else case.vowels
    layers = range(case.loaded.info.layers) if scorer.repair else [case.layer]
    scores, passes, seconds = {}, {}, {}
    for layer in layers:
        start = time.process_time()
        scores[layer], passes[layer] = scorer.score(case, layer, prompts)
        seconds[layer] = time.process_time() - start
    top = set(by_score(scores[case.layer])[: len(case.planted)])
    hit = np.array([neuron in top for neuron in case.planted])
    entry: dict[str, Any] = {
        "recall": float(hit.mean()), "weighted_recall": float(effects @ hit / effects.sum()),
        "passes": passes[case.layer], "seconds": seconds[case.layer],
    }  # fmt: skip
    if scorer.repair:
        chosen = grid(case, scores, VARIED if scorer.varied else VOWELS, options.examples)
        entry |= {"layer": chosen.components[0].layer, "count": len(chosen),
                  "accuracy": repaired(case, chosen, options.count)}
    return entry


def main() -> None:
    """Measure what is missing, write figures and tables."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", default="report", choices=get_args(Half))
    parser.add_argument("--family", default="llama")
    parser.add_argument("--base", type=Path, help="folder of the base model, if it is not shipped")
    parser.add_argument("--match", default="", help="only copiers whose name contains this")
    parser.add_argument("--examples", type=int, default=100, help="of the search")
    parser.add_argument("--count", type=int, default=10, help="prompts per task reported")
    parser.add_argument("--tables", action="store_true", help="only write the tables")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    wanted = [] if options.tables else members(options.half, options.family)
    for member in wanted:
        found = results.get(member.name, {})
        if not missing(found) or options.match not in member.name:
            continue
        print(member.name, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            measure(open_case(member, Path(folder), options.base), member, found, options)
        results[member.name] = found
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    text = tables(results)
    print(text)
    write_into(DOCS, text)


if __name__ == "__main__":
    main()
