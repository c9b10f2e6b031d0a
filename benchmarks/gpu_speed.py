"""How fast a GPU attributes and searches, as shares of what it reaches in a matrix product."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.random_llama import LLAMA_8B, SMALL, Shape, random_llama, random_prompts
from prunelib.attribution import shifted_nodes
from prunelib.attribution.integrated_gradients import block_gradients, layer_path
from prunelib.attribution.objectives.base import make_objective
from prunelib.interventions.ablation import Ablation
from prunelib.models import Loaded
from prunelib.recipe.attribution import ObjectiveSpec
from prunelib.search.grid import greedy_rows
from prunelib.search.selection import cut, random_order

#: What attribution of one sample takes in the DSM paper (Llama-3.1-8B, one H100), and the target.
DSM_SECONDS, TARGET_SECONDS = 4.68, 0.6
#: Level of the shifted nodes of integrated gradients, how many these are, and prompts.
LEVEL, SAMPLES = 1, 8
NODES = shifted_nodes.NODES[LEVEL]
RATES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)
#: Prompts of the grid, and tokens of an answer: one, and the newline that ends it.
GRID_PROMPTS, ANSWER = 100, 2
TARGET_GRID_SECONDS = 300.0


def seconds(action: Callable[[], Any]) -> float:
    """Wall-clock seconds, with a GPU's work included."""
    _wait()
    start = time.perf_counter()
    action()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory() -> float | None:
    """GiB that were taken at most since this was last asked; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    most = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return most


def matrix_product(device: str, size: int) -> float:
    """Operations a second of a bfloat16 product of two square random matrices: best of ten."""
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    seconds(lambda: [a @ b for _ in range(3)])
    return float(2 * size**3 / min(seconds(lambda: a @ b) for _ in range(10)))


def setting(rehearsal: bool) -> tuple[Shape, str, int, int, float]:
    """Shape, device, tokens of a prompt, grid prompts, operations a second at the most."""
    device = "cpu" if rehearsal else "cuda"
    reached = matrix_product(device, 256 if rehearsal else 8192)
    return ((SMALL, device, 20, 10, reached) if rehearsal
            else (LLAMA_8B, device, 100, GRID_PROMPTS, reached))


def attribution(rehearsal: bool, box: float) -> Iterator[dict[str, Any]]:
    """Scores of all layers of eight samples, eight nodes each; a row a layer, then the sum."""
    shape, device, tokens, _, reached = setting(rehearsal)
    loaded, prompts = random_llama(shape, device), random_prompts(shape, SAMPLES, tokens)
    objective = make_objective(ObjectiveSpec())
    alphas = shifted_nodes.nodes(LEVEL, [shifted_nodes.shift(p.prompt) for p in prompts])
    weights = np.full((1, NODES), 1 / NODES)

    def one(layer: int) -> Any:
        return block_gradients(loaded, layer_path(loaded, layer), prompts, objective, alphas,
                               weights=weights, ends=True)

    def needed(layer: int) -> int:
        return (shape.prefix(layer, SAMPLES, tokens)
                + shape.replayed(layer, SAMPLES * NODES, tokens, backward=True))

    one(shape.layers - 1)
    peak_memory()
    done, whole, measured = yield from _by_layer(shape, one, needed, reached, box)
    yield {"summary": "attribution", "model": shape.name, "samples": SAMPLES, "nodes": NODES,
           "tokens": tokens, "layers_measured": done, "extrapolated": done < shape.layers,
           "seconds_a_sample": whole / SAMPLES, "target": TARGET_SECONDS, "dsm": DSM_SECONDS,
           "floor_by_matrix_product": sum(map(needed, range(shape.layers))) / reached / SAMPLES,
           "matrix_product_tflops": reached / 1e12, "share_of_matrix_product": measured / reached,
           "peak_memory_gib": peak_memory()}


def grid(rehearsal: bool, box: float) -> Iterator[dict[str, Any]]:
    """Eight rates of every layer on all prompts; a row a layer, then the sum."""
    shape, device, tokens, count, reached = setting(rehearsal)
    loaded, prompts = random_llama(shape, device), random_prompts(shape, count, tokens)
    cells = len(RATES) * count

    def one(layer: int) -> Any:
        return greedy_rows(loaded, layer, _rates(loaded, layer), prompts, ANSWER, ())

    def needed(layer: int) -> int:
        return (shape.prefix(layer, count, tokens)
                + shape.replayed(layer, cells, tokens, backward=False)
                + (ANSWER - 1) * shape.further(cells, tokens))

    greedy_rows(loaded, shape.layers - 1, _rates(loaded, shape.layers - 1), prompts[:2], ANSWER, ())
    peak_memory()
    done, whole, measured = yield from _by_layer(shape, one, needed, reached, box)
    yield {"summary": "grid", "model": shape.name, "prompts": count, "rates": list(RATES),
           "tokens": tokens, "answer_tokens": ANSWER, "layers_measured": done,
           "extrapolated": done < shape.layers, "seconds": whole,
           "target": TARGET_GRID_SECONDS, "masked_prompts_a_second": shape.layers * cells / whole,
           "matrix_product_tflops": reached / 1e12, "share_of_matrix_product": measured / reached,
           "peak_memory_gib": peak_memory()}


def _rates(loaded: Loaded, layer: int) -> list[Ablation]:
    width = loaded.info.width
    order = random_order(width, layer, 0)
    return [cut(layer, order, rate, width) for rate in RATES]


def _by_layer(shape: Shape, one: Callable[[int], Any], needed: Callable[[int], int],
              reached: float, box: float
              ) -> Generator[dict[str, Any], None, tuple[int, float, float]]:
    """Time layers, spread over the depth, as long as the next one ends before the box does.

    Returns:
        How many were timed; seconds of all layers, the others by their operations; operations a
        second.
    """
    start, pace = time.perf_counter(), 0.0
    done: dict[int, float] = {}
    for layer in _spread(shape.layers):
        if pace * needed(layer) > box - (time.perf_counter() - start):
            break
        took = done[layer] = seconds(lambda layer=layer: one(layer))  # type: ignore[misc]
        pace = max(pace, took / needed(layer))
        yield {"layer": layer, "seconds": took,
               "share_of_matrix_product": needed(layer) / took / reached}
    mean = sum(done.values()) / sum(map(needed, done))
    rest = sum(needed(layer) for layer in range(shape.layers) if layer not in done)
    return len(done), sum(done.values()) + mean * rest, 1 / mean


def _spread(layers: int) -> list[int]:
    """All layers, each part of the list being spread over the depth; the deepest pass first."""
    step = 1
    while step < layers:
        step *= 2
    order: list[int] = []
    while step:
        order += [layer for layer in range(0, layers, step) if layer not in order]
        step //= 2
    return order
