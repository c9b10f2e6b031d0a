"""The grid of a search, all layers × 8 rates: in one batch a layer, or cell by cell.

    python -m benchmarks.grid [--model reference/llama] [--model FOLDER] [--layers 4] [--prompts 20]

Against *hot swap* (vLLM answers the same prompts under each ablation, switched in the running
engine) and against *reload* (a new process and engine for each cell, which is measured for a few
cells, as each costs the same, and multiplied). All three write greedy answers to the same token ids
up to the same length, in one run; rows whose right, copied or text are not those of hot swap are
counted. No checkpoint is written for a reload, so it is dearer still where one is needed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.switch_ablation import hardware, in_fresh_process
from prunelib.interventions.ablation import Ablation
from prunelib.models import ModelInfo, describe
from prunelib.models.loading import load_tokenizer
from prunelib.pipeline.units.prompts import tokenized
from prunelib.scoring.correctness import first_line, judge
from prunelib.search.selection import cut, random_order
from prunelib.tasks import Example, draw, get_task

RESULT = Path(__file__).parent / "results" / "grid.json"
MODELS = ("reference/llama",)
RATES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4)
SHOTS = 3
PROMPTS, RELOADS = 100, 2


@dataclass(frozen=True)
class Setting:
    """What all three do.

    Attributes:
        layers: how many, evenly spread.
        prompts: of each cell.
    """

    model: str
    task: str
    layers: int
    prompts: int

    def questions(self) -> list[Example]:
        """The examples, the same in every cell."""
        return draw(get_task(self.task), split="search", shots=SHOTS, seed=0, count=self.prompts)

    def cells(self, info: ModelInfo) -> dict[int, list[Ablation]]:
        """Layer → nested sets of random neurons, one for each rate."""
        layers = np.unique(np.linspace(0, info.layers - 1, self.layers).round().astype(int))
        return {layer: [cut(layer, random_order(info.width, layer, 0), rate, info.width)
                        for rate in RATES] for layer in layers.tolist()}


def batched(setting: Setting, answer: Connection) -> None:
    """Seconds of each layer in one batch, and what was written."""
    from prunelib.engines.limits import stop_token_ids
    from prunelib.models import load
    from prunelib.search.grid import greedy_rows
    from prunelib.tasks.tokenization import encode

    loaded = load(describe(setting.model))
    examples = setting.questions()
    room = tokenized(get_task(setting.task), examples, loaded.tokenizer)[0].max_tokens
    prompts = [encode(example, loaded.tokenizer) for example in examples]
    stops = stop_token_ids(loaded.tokenizer, loaded.info.ends)
    cells = setting.cells(loaded.info)
    first = next(iter(cells))
    greedy_rows(loaded, first, cells[first], prompts[:2], room, stops)  # warm
    seconds, texts = [], []
    for layer, ablations in cells.items():
        started = time.perf_counter()
        found = greedy_rows(loaded, layer, ablations, prompts, room, stops)
        texts += [loaded.tokenizer.batch_decode(row, skip_special_tokens=True)
                  for row in found.tokens]
        seconds.append(time.perf_counter() - started)
    answer.send({"seconds": seconds, "texts": texts})


def swapped(setting: Setting, answer: Connection) -> None:
    """Seconds of each cell in one vLLM engine, switched in place, and what was written."""
    from prunelib.engines.vllm import VllmEngine

    info = describe(setting.model)
    engine = VllmEngine(info)
    prompts = tokenized(get_task(setting.task), setting.questions(), load_tokenizer(info))
    engine.generate(prompts)  # warm
    seconds, texts = [], []
    for ablation in (a for ablations in setting.cells(info).values() for a in ablations):
        started = time.perf_counter()
        engine.switch(ablation)
        texts.append([completion.text for completion in engine.generate(prompts)])
        seconds.append(time.perf_counter() - started)
    answer.send({"seconds": seconds, "texts": texts})


def reloaded(setting: Setting, answer: Connection) -> None:
    """One cell from nothing; the parent holds the clock."""
    from prunelib.engines.vllm import VllmEngine

    info = describe(setting.model)
    engine = VllmEngine(info)
    engine.switch(next(iter(setting.cells(info).values()))[-1])
    engine.generate(tokenized(get_task(setting.task), setting.questions(), load_tokenizer(info)))
    answer.send({})


def differing(setting: Setting, ours: list[list[str]], theirs: list[list[str]]) -> dict[str, int]:
    """Rows in which two ways do not agree: on right and copied, and on the text."""
    task, examples = get_task(setting.task), setting.questions()

    def outcomes(texts: list[list[str]]) -> list[tuple[bool, bool]]:
        judged = [judge(task, example, first_line(text, example.separator))
                  for of_cell in texts for example, text in zip(examples, of_cell, strict=True)]
        return [(outcome.correct, outcome.copied) for outcome in judged]

    pairs = zip(outcomes(ours), outcomes(theirs), strict=True)
    return {
        "rows": len(ours) * len(examples),
        "right_by_hot_swap": sum(correct for correct, _ in outcomes(theirs)),
        "different_outcomes": sum(a != b for a, b in pairs),
        "different_texts": sum(a != b for row, other in zip(ours, theirs, strict=True)
                               for a, b in zip(row, other, strict=True)),
    }


def measure(setting: Setting, reloads: int) -> dict[str, Any]:
    """All three, one after the other."""
    grid, _ = in_fresh_process(batched, setting)
    swap, _ = in_fresh_process(swapped, setting)
    each = [in_fresh_process(reloaded, setting)[1] for _ in range(reloads)]
    cells = len(swap["seconds"])
    seconds = {"grid": sum(grid["seconds"]), "hot_swap": sum(swap["seconds"]),
               "reload": statistics.mean(each) * cells}
    return {
        **asdict(setting),
        "model": Path(setting.model).name,
        "layers": len(grid["seconds"]),
        "cells": cells,
        "seconds": seconds,
        "of_each": {"grid_layers": grid["seconds"], "hot_swap_cells": swap["seconds"],
                    "reload_cells_measured": each},
        "against_hot_swap": seconds["hot_swap"] / seconds["grid"],
        "against_reload": seconds["reload"] / seconds["grid"],
        "agreement": differing(setting, grid["texts"], swap["texts"]),
    }


def report(results: list[dict[str, Any]]) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="a grid of masks, layer by layer, against cell by cell")
    for column in ("model", "cells", "way", "seconds", "masked prompts a second", "grid is faster",
                   "other outcomes"):
        table.add_column(column, justify="left" if column in ("model", "way") else "right")
    for result in results:
        rows = result["agreement"]["rows"]
        for way, seconds in result["seconds"].items():
            note = f" ({len(result['of_each']['reload_cells_measured'])} measured)"
            table.add_row(
                result["model"], str(result["cells"]), way + (note if way == "reload" else ""),
                f"{seconds:.1f}", f"{rows / seconds:.1f}",
                "" if way == "grid" else f"{result[f'against_{way}']:.1f} ×",
                f"{result['agreement']['different_outcomes']} of {rows}" if way == "grid" else "")
    Console().print(table)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", action="append", help=f"a model id or a folder {MODELS}")
    parser.add_argument("--task", default="vowel_counting")
    parser.add_argument("--layers", type=int, help="how many, evenly spread (all)")
    parser.add_argument("--prompts", type=int, default=PROMPTS, help=f"of each cell ({PROMPTS})")
    parser.add_argument("--reloads", type=int, default=RELOADS, help=f"measured ({RELOADS})")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    setting = hardware()
    results = [
        measure(Setting(model, given.task, given.layers or describe(model).layers, given.prompts),
                given.reloads)
        for model in given.model or MODELS
    ]
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps({**setting, "results": results}, indent=2) + "\n")
    report(results)


if __name__ == "__main__":
    main()
