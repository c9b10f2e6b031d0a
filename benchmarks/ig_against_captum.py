"""The integrated-gradients score matrix of all layers: prunelib against Captum at its defaults.

    python -m benchmarks.ig_against_captum                    # a reference model, on the CPU
    python -m benchmarks.ig_against_captum --config 8b        # Llama-3.1-8B's shape, on a GPU

Both attribute the outputs of ``gate_proj`` along the path from 0 to 1, one layer at a time,
on the same prompts, with the same number of rows in a batch, in one process. Captum runs its
defaults (50 Gauss–Legendre steps); prunelib raises a layer's nodes until its error estimate is
below the tolerance. The error of both is taken against the largest rule. Needs only torch,
transformers, numpy and captum.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients

from benchmarks.random_llama import LLAMA_8B, random_llama, random_prompts
from prunelib.attribution import quadrature
from prunelib.attribution.integrated_gradients import (
    PATH_ROWS,
    block_gradients,
    layer_path,
    layer_scores,
)
from prunelib.attribution.objectives.base import make_objective
from prunelib.attribution.objectives.copy_shift import copy_shift
from prunelib.models import Loaded, describe, load
from prunelib.recipe.attribution import ObjectiveSpec
from prunelib.tasks import draw, get_task
from prunelib.tasks.tokenization import Batch, Encoded, encode, pad_left

BLOCK = 25
TOLERANCE = 0.02


def reference(name: str, count: int) -> tuple[Loaded, list[Encoded]]:
    """A trained model and vowel-counting prompts."""
    loaded = load(describe(name))
    examples = draw(get_task("vowel_counting"), split="attribute", shots=3, seed=0, count=count)
    return loaded, [encode(example, loaded.tokenizer) for example in examples]


def ours(loaded: Loaded, layer: int, prompts: list[Encoded], level: int | None = None
         ) -> tuple[np.ndarray[Any, Any], int]:
    """Scores and nodes of a layer; a fixed level, or levels until the tolerance is met."""
    blocks: list[list[Any]] = [[] for _ in range(0, len(prompts), BLOCK)]
    for current in range(len(quadrature.NODES)):
        for parts, start in zip(blocks, range(0, len(prompts), BLOCK), strict=True):
            parts.append(block_gradients(loaded, layer_path(loaded, layer),
                                         prompts[start : start + BLOCK],
                                         make_objective(ObjectiveSpec()),
                                         quadrature.new_nodes(current))[0])
        found = layer_scores(blocks, current)
        enough = found.error <= TOLERANCE if level is None else current == level
        if enough:
            break
    return found.scores, quadrature.NODES[current]


def captum(loaded: Loaded, layer: int, prompts: list[Encoded]) -> np.ndarray[Any, Any]:
    """Mean over prompts of Captum's attributions of a scale vector on the layer's output."""
    total = np.zeros(loaded.info.width)
    projection = loaded.adapter.layers(loaded.model)[layer].get_submodule(
        loaded.adapter.hidden[0])
    for start in range(0, len(prompts), BLOCK):
        block = prompts[start : start + BLOCK]
        batch = pad_left([p.prompt for p in block], loaded.device)

        def forward(scale: torch.Tensor, which: torch.Tensor, batch: Batch = batch,
                    block: list[Encoded] = block) -> torch.Tensor:
            handle = projection.register_forward_hook(
                lambda module, args, output: output * scale[:, None, :])
            rows = Batch(batch.ids[which], batch.mask[which], batch.positions[which])
            try:
                logits = loaded.model(**rows.inputs(), use_cache=False, logits_to_keep=1).logits
            finally:
                handle.remove()
            return copy_shift(logits[:, -1], [block[int(i)] for i in which])

        ones = torch.ones(len(block), loaded.info.width, device=loaded.device,
                          dtype=next(loaded.model.parameters()).dtype)
        found = IntegratedGradients(forward).attribute(
            ones, baselines=torch.zeros_like(ones), internal_batch_size=PATH_ROWS,
            additional_forward_args=(torch.arange(len(block), device=loaded.device),),
        )
        total += found.double().sum(0).cpu().numpy()
    return total / len(prompts)


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    """Result and seconds, with a GPU's work included."""
    start = time.perf_counter()
    result = action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - start


def main() -> None:
    """Run both, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="reference/llama-copier")
    parser.add_argument("--config", choices=["8b"], help="random weights of this shape instead")
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--layers", type=int, help="only the first so many layers")
    options = parser.parse_args()
    loaded, prompts = ((random_llama(LLAMA_8B, "cuda"),
                        random_prompts(LLAMA_8B, options.prompts, 100)) if options.config
                       else reference(options.model, options.prompts))
    layers = range(min(options.layers or loaded.info.layers, loaded.info.layers))
    ours(loaded, 0, prompts[:2])  # warm-up
    rows = []
    matrices: dict[str, list[np.ndarray[Any, Any]]] = {"mine": [], "theirs": [], "truth": []}
    print(f"{'layer':>5} {'nodes':>5} {'prunelib s':>10} {'error':>9} {'Captum s':>9} "
          f"{'error':>9} {'ratio':>6}")
    for layer in layers:
        (mine, nodes), seconds = timed(lambda layer=layer: ours(loaded, layer, prompts))
        theirs, captum_seconds = timed(lambda layer=layer: captum(loaded, layer, prompts))
        truth, _ = ours(loaded, layer, prompts, level=len(quadrature.NODES) - 1)
        for name, scores in (("mine", mine), ("theirs", theirs), ("truth", truth)):
            matrices[name].append(scores)
        error, captum_error = (float(np.linalg.norm(x - truth) / np.linalg.norm(truth))
                               for x in (mine, theirs))
        rows.append({"layer": layer, "nodes": nodes, "seconds": seconds, "error": error,
                     "captum_seconds": captum_seconds, "captum_error": captum_error})
        print(f"{layer:>5} {nodes:>5} {seconds:>10.2f} {error:>9.1e} {captum_seconds:>9.2f} "
              f"{captum_error:>9.1e} {captum_seconds / seconds:>6.1f}", flush=True)
    total = sum(r["seconds"] for r in rows)
    ratio = sum(r["captum_seconds"] for r in rows) / total
    whole = {name: np.concatenate(scores) for name, scores in matrices.items()}
    errors = {name: float(np.linalg.norm(whole[name] - whole["truth"])
                          / np.linalg.norm(whole["truth"])) for name in ("mine", "theirs")}
    print(f"all layers: Captum takes {ratio:.2f} times as long as prunelib; relative error of the "
          f"score matrix {errors['theirs']:.1e} (Captum), {errors['mine']:.1e} (prunelib)")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    out = Path(__file__).parent / "results" / "ig_against_captum.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"model": loaded.info.id, "prompts": len(prompts), "ratio": ratio,
                               "error": errors["mine"], "captum_error": errors["theirs"],
                               "device": device or "cpu", "threads": torch.get_num_threads(),
                               "layers": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
