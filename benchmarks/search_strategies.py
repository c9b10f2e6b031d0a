"""What cheaper search strategies save, and what their choice loses against the exhaustive search.

``python -m benchmarks.search_strategies [--replays 100] [--cache DIR]``

On the reference models every cell of the grid (all layers × the 12 rates of
``jobs/recipes/copy_bias.yaml``; also the 7 rates that recipes have by default) is evaluated once,
on search and on held-out examples of vowel counting. Strategies are then run on these outcomes.
*Evaluations* are cells × examples that a strategy asked for, as a share of the exhaustive search.
*Regret* is the held-out accuracy of the exhaustive choice minus that of the strategy's choice,
prompt by prompt, with the standard error of that difference; *other tasks* is the accuracy of the
choice on the 18 tasks of ``icl18_reference``, which no search sees. One search says little, so each
is also replayed on random draws of the search examples.

With 4 layers there is little to gain over layers: what is saved is saved over rates and examples.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.copier_tables import write_into
from benchmarks.ig_against_captum import ours, reference
from prunelib.engines.limits import stop_token_ids
from prunelib.identity import digest
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.models import Loaded
from prunelib.recipe.methods import STRATEGIES
from prunelib.scoring.correctness import first_line, judge
from prunelib.search.choice import Outcome, Rule, Statistic, choose
from prunelib.search.grid import greedy_rows
from prunelib.search.selection import by_score, cut, positive_mass
from prunelib.search.strategies import Grid, Place, Request, load_strategy, search
from prunelib.tasks import Split, draw, get_task, task_names
from prunelib.tasks.tokenization import encode

RESULT = Path(__file__).parent / "results" / "search_strategies.json"
DOCS = Path(__file__).parent.parent / "docs" / "results" / "search-strategies.md"
MODELS = ("reference/llama-copier", "reference/llama-young")
RATES = {
    12: (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4),
    7: (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4),
}
STATISTICS: tuple[Statistic, ...] = ("accuracy", "margin")
#: Prompts of the attribution; examples of a search, of which replays draw from POOL; held out.
PROMPTS, EXAMPLES, POOL, HELD_OUT = 100, 200, 400, 300
#: Examples of each other task.
OTHERS = 10
SHOTS = 3
PROXY = "vowel_counting"
FIELDS = tuple(field.name for field in fields(Outcome))


def attributed(name: str, folder: Path) -> tuple[Loaded, NDArray[np.float64]]:
    """A model and its integrated-gradients scores ``[layers, neurons]``, kept in ``folder``."""
    loaded, prompts = reference(name, PROMPTS)
    kept = folder / f"scores-{loaded.info.weights_digest}.npy"
    if not kept.exists():
        layers = range(loaded.info.layers)
        np.save(kept, np.stack([ours(loaded, layer, prompts)[0] for layer in layers]))
    return loaded, np.load(kept)


def fresh(loaded: Loaded, layer: int, ablations: list[Ablation], task: str, split: Split,
          count: int) -> Outcome:
    """Outcomes of ablations of one layer, each ``[ablations, count]``."""
    tokenizer, about = loaded.tokenizer, get_task(task)
    examples = draw(about, split=split, shots=SHOTS, seed=0, count=count)
    prompts = [encode(example, tokenizer) for example in examples]
    room = 2 + max(len(answer) for p in prompts for answer in (p.gold, *p.answers))
    found = greedy_rows(loaded, layer, ablations, prompts, room,
                        stop_token_ids(tokenizer, loaded.info.ends))
    judged = [
        [judge(about, example,
               first_line(str(tokenizer.decode(ids, skip_special_tokens=True)), example.separator))
         for example, ids in zip(examples, answers, strict=True)]
        for answers in found.tokens
    ]
    return Outcome(np.array([[o.correct for o in row] for row in judged]),
                   np.array([[o.copied for o in row] for row in judged]), found.margins)


@dataclass
class Known:
    """All cells of a model, and what comes of them; outcomes are kept in ``folder``."""

    loaded: Loaded
    folder: Path
    ablations: dict[Place, Ablation]
    mass: dict[int, float]
    search: dict[Place, Outcome]
    held_out: dict[Place, Outcome]

    def evaluated(self, layer: int, ablations: list[Ablation], task: str, split: Split,
                  count: int) -> Outcome:
        """As :func:`fresh`, once."""
        about = [self.loaded.info.weights_digest, layer, [a.digest for a in ablations], task,
                 get_task(task).digest, split, count]
        kept = self.folder / f"outcome-{digest('benchmark', about)}.npz"
        if not kept.exists():
            np.savez(kept, **asdict(fresh(self.loaded, layer, ablations, task, split, count)))
        with np.load(kept) as found:
            return Outcome(*(found[field] for field in FIELDS))

    def other_tasks(self, layer: int, ablation: Ablation) -> float:
        """Mean accuracy over the 18 tasks of ``icl18_reference``, on their report split."""
        return float(np.mean([
            self.evaluated(layer, [ablation], task, "report", OTHERS).correct.mean()
            for task in task_names("icl18_reference")]))

    def baseline(self) -> dict[str, float]:
        """Accuracy of the untouched model."""
        last = self.loaded.info.layers - 1
        held_out = self.evaluated(last, [BASELINE], PROXY, "report", HELD_OUT)
        return {"accuracy": float(held_out.correct.mean()),
                "other_tasks": self.other_tasks(last, BASELINE)}


def known(name: str, folder: Path) -> Known:
    """Evaluate every cell of a model on both splits of the proxy."""
    loaded, scores = attributed(name, folder)
    info, rates = loaded.info, RATES[12]
    model = Known(loaded, folder, {}, {}, {}, {})
    for layer, of_layer in enumerate(scores):
        model.mass[layer] = positive_mass(of_layer)
        cells = [cut(layer, by_score(of_layer), rate, info.width, info.site) for rate in rates]
        searched = model.evaluated(layer, cells, PROXY, "search", POOL)
        held_out = model.evaluated(layer, cells, PROXY, "report", HELD_OUT)
        for i, rate in enumerate(rates):
            model.ablations[layer, rate] = cells[i]
            for outcomes, whole in ((model.search, searched), (model.held_out, held_out)):
                outcomes[layer, rate] = Outcome(*(getattr(whole, field)[i] for field in FIELDS))
        print(f"{name}: layer {layer} evaluated", flush=True)
    return model


def one_search(model: Known, strategy: str, rates: tuple[float, ...], statistic: Statistic,
               examples: NDArray[np.intp]) -> tuple[Place, int, int]:
    """The choice, the cells that were tried, and the evaluations."""
    ablations = {place: a for place, a in model.ablations.items() if place[1] in rates}
    places = {a.digest: place for place, a in ablations.items()}

    def evaluate(request: Request) -> Outcome:
        found = [model.search[places[a.digest]] for a in request.ablations]
        which = examples[request.start : request.stop]
        return Outcome(*(np.stack([getattr(o, field)[which] for o in found])
                         for field in FIELDS))

    rule = Rule("smallest_within_error", statistic, "excluded")
    found = search(load_strategy(strategy), Grid(ablations, len(examples), model.mass, rule),
                   evaluate)
    choice = choose(found.candidates, rule)
    assert choice is not None
    return (choice.layer, choice.rate), len(found.cells), found.evaluations


def regret(model: Known, place: Place, exhaustive: Place) -> tuple[float, float]:
    """Held-out accuracy that a choice loses, and its paired standard error."""
    lost = (model.held_out[exhaustive].correct.astype(float)
            - model.held_out[place].correct.astype(float))
    return float(lost.mean()), float(lost.std(ddof=1) / np.sqrt(len(lost)))


def compared(model: Known, rates: tuple[float, ...], statistic: Statistic, replays: int
             ) -> list[dict[str, Any]]:
    """Every strategy on the first examples, and on ``replays`` random draws of them."""
    rng = np.random.default_rng(0)
    draws = [np.arange(EXAMPLES)] + [rng.permutation(POOL)[:EXAMPLES] for _ in range(replays)]

    @functools.cache
    def other_tasks(place: Place) -> float:
        return model.other_tasks(place[0], model.ablations[place])

    full = len(model.mass) * len(rates) * EXAMPLES
    rows: list[dict[str, Any]] = []
    exhaustive: list[Place] = []
    for strategy in STRATEGIES:
        found = [one_search(model, strategy, rates, statistic, examples) for examples in draws]
        choices = [place for place, *_ in found]
        exhaustive = exhaustive or choices  # it comes first
        losses = [regret(model, *pair) for pair in zip(choices, exhaustive, strict=True)]
        (layer, rate), cells, evaluations = found[0]
        rows.append({
            "strategy": strategy, "cells": cells, "share": evaluations / full,
            "layer": layer, "rate": rate,
            "accuracy": float(model.held_out[layer, rate].correct.mean()),
            "regret": losses[0][0], "standard_error": losses[0][1],
            "other_tasks": other_tasks((layer, rate)),
            "replays": {
                "largest_share": max(e for *_, e in found[1:]) / full,
                "regret": float(np.mean([loss for loss, _ in losses[1:]])),
                "within_one_error": float(np.mean([a <= b for a, b in losses[1:]])),
                "other_tasks": float(np.mean([other_tasks(p) for p in choices[1:]])),
            },
        })  # fmt: skip
    return rows


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print the table of one search."""
    table = Table("strategy", "cells", "evaluations", "choice", "held out", "regret ± error",
                  "other tasks", "replays: regret", "within", "other tasks", title=title)
    for r in rows:
        many = r["replays"]
        table.add_row(
            r["strategy"], str(r["cells"]), f"{r['share']:.1%}", f"{r['layer']}, {r['rate']:.1%}",
            f"{r['accuracy']:.1%}", f"{100 * r['regret']:+.1f} ± {100 * r['standard_error']:.1f}",
            f"{r['other_tasks']:.1%}", f"{100 * many['regret']:+.2f}",
            f"{many['within_one_error']:.0%}", f"{many['other_tasks']:.1%}")
    Console(width=140).print(table)


def page(results: list[dict[str, Any]]) -> str:
    """The table of ``docs/results/search-strategies.md``."""
    lines = ["| model | rates | choice by | strategy | evaluations | choice | regret ± error | "
             "replays: mean regret | within one error | other tasks |", "| --- " * 10 + "|"]
    for found in results:
        for r in found["strategies"]:
            many = r["replays"]
            lines.append(
                f"| {found['model'].removeprefix('reference/')} | {found['rates']} | "
                f"{found['statistic']} | {r['strategy']} | {r['share']:.0%} | "
                f"layer {r['layer']}, {r['rate']:.1%} | "
                f"{100 * r['regret']:+.1f} ± {100 * r['standard_error']:.1f} | "
                f"{100 * many['regret']:+.2f} | {many['within_one_error']:.0%} | "
                f"{r['other_tasks']:.0%} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables; write them to ``benchmarks/results`` and ``docs``."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replays", type=int, default=100)
    parser.add_argument("--cache", type=Path, help="where scores and outcomes are kept",
                        default=Path(tempfile.gettempdir()) / "prunelib-search-strategies")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    for name in MODELS:
        model = known(name, options.cache)
        for count, rates in RATES.items():
            for statistic in STATISTICS:
                rows = compared(model, rates, statistic, options.replays)
                show(f"{name}, {len(model.mass)} layers × {count} rates, choice by {statistic}",
                     rows)
                results.append({"model": name, "layers": len(model.mass), "rates": count,
                                "statistic": statistic, "baseline": model.baseline(),
                                "strategies": rows})
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({
        "examples": EXAMPLES, "held_out": HELD_OUT, "replays": options.replays,
        "replays_draw_from": POOL, "examples_of_each_other_task": OTHERS, "shots": SHOTS,
        "searches": results}, indent=1) + "\n")
    write_into(DOCS, page(results))


if __name__ == "__main__":
    main()
