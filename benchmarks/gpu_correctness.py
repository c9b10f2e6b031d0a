"""What a GPU computes against what a CPU computes, on the reference models.

Each check compares one part of prunelib and gives rows of figures with their limits. The tests
marked ``gpu`` and ``benchmarks.gpu_check`` run the same checks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.models import Loaded, describe, load
from prunelib.tasks import draw, get_task
from prunelib.tasks.tokenization import Encoded, encode, pad_left

if TYPE_CHECKING:
    from torch import Tensor

MODELS = ("reference/llama-copier", "reference/gpt2-copier", "reference/opt-copier",
          "reference/bloom-copier", "reference/mamba-copier")
#: Largest difference in float32: relative L2 of scores, absolute of log-probabilities (nats).
TOLERANCE = 1e-4
#: Smallest share of the neurons ranked first in float32 that bfloat16 ranks first as well.
OVERLAP = 0.9
#: Share of all neurons that is looked at for that.
FIRST = 0.02

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """What was compared: a difference with its upper limit, or an agreement with its lower."""

    name: str
    value: float
    limit: float
    agreement: bool = False

    @property
    def passed(self) -> bool:
        """Whether it is within its limit; nan is not."""
        return self.value >= self.limit if self.agreement else self.value <= self.limit


@functools.cache
def on(model: str, device: str, dtype: str = "float32") -> Loaded:
    """A reference model on a device."""
    return load(describe(model), dtype, [device])


@functools.cache
def prompts_of(model: str, count: int) -> list[Encoded]:
    """Vowel-counting prompts of three shots."""
    examples = draw(get_task("vowel_counting"), split="attribute", shots=3, seed=0, count=count)
    return [encode(example, on(model, "cpu").tokenizer) for example in examples]


def some_neurons(loaded: Loaded, layer: int, rate: float = 0.05) -> Ablation:
    """Evenly spaced neurons of a layer."""
    width = loaded.info.width
    return Ablation.of_layer(layer, range(0, width, max(1, round(1 / rate))), loaded.adapter.site)


def score_matrix(loaded: Loaded, prompts: Sequence[Encoded]) -> Array:
    """Attributions of all layers' neurons at four midpoints, ``[layers, neurons]``."""
    from prunelib.attribution.integrated_gradients import block_gradients, layer_path
    from prunelib.attribution.objectives.base import make_objective
    from prunelib.recipe.attribution import ObjectiveSpec

    objective, alphas = make_objective(ObjectiveSpec()), (np.arange(4) + 0.5) / 4
    return np.array([
        block_gradients(loaded, layer_path(loaded, layer), prompts, objective, alphas)[0]
        .sums.mean(0) / len(prompts) for layer in range(loaded.info.layers)])


def attribution(model: str, device: str) -> Iterator[Figure]:
    """Integrated gradients of all layers."""
    found, expected = (score_matrix(on(model, d), prompts_of(model, 8)) for d in (device, "cpu"))
    yield Figure("relative difference of scores", _relative(found, expected), TOLERANCE)


def masks(model: str, device: str) -> Iterator[Figure]:
    """Log-probabilities under an ablation: of a CPU, and of the GPU with zeros in the weights."""
    from prunelib.interventions.ablation import switch_off

    ablation = some_neurons(on(model, "cpu"), 1)
    found, expected = (_masked(on(model, d), ablation) for d in (device, "cpu"))
    yield Figure("log-probabilities", _largest(found, expected), TOLERANCE)
    written = load(describe(model), "float32", [device])
    switch_off(written.model, written.info, ablation)
    yield Figure("log-probabilities with zeros in the weights",
                 _largest(found, _masked(written, BASELINE)), TOLERANCE)


def replay(model: str, device: str) -> Iterator[Figure]:
    """Log-probabilities from the middle on, on the GPU, against whole passes there."""
    import torch

    from prunelib.attribution.prefix_replay import masked_rows

    loaded = on(model, device)
    batch = pad_left([p.prompt for p in prompts_of(model, 8)], loaded.device)
    for layer in range(loaded.info.layers):
        ablation = some_neurons(loaded, layer)
        keep = torch.ones(2, loaded.info.width, device=loaded.device)
        keep[1, ablation.by_layer(loaded.adapter.site)[layer]] = 0
        with masked_rows(loaded, layer, loaded.adapter.site, batch) as under:
            found = under(keep).log_softmax(-1)
        whole = torch.cat([_masked(loaded, BASELINE), _masked(loaded, ablation)])
        yield Figure(f"log-probabilities from layer {layer} on", _largest(found, whole), TOLERANCE)


def grid(model: str, device: str) -> Iterator[Figure]:
    """Outcomes and margins of eight rates of a layer."""
    from prunelib.search.grid import greedy_rows

    def answers(where: str) -> Any:
        loaded = on(model, where)
        rates = [some_neurons(loaded, 1, rate) for rate in
                 (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)]
        return greedy_rows(loaded, 1, rates, prompts_of(model, 8), 3, _stops(loaded))

    found, expected = answers(device), answers("cpu")
    yield Figure("margins", float(np.abs(found.margins - expected.margins).max()), TOLERANCE)
    yield _same_answers(list(chain(*found.tokens)), list(chain(*expected.tokens)))


def engine(model: str, device: str) -> Iterator[Figure]:
    """The transformers engine: completions and log-probabilities, untouched and under an ablation.

    Teacher forcing is compared as well.
    """
    from prunelib.engines.base import Prompt
    from prunelib.engines.transformers import TransformersEngine

    prompts = prompts_of(model, 16)
    for ablation in (BASELINE, some_neurons(on(model, "cpu"), 2)):
        said = []
        for where in (device, "cpu"):
            running = TransformersEngine(on(model, where))
            running.switch(ablation)
            said.append((
                running.generate([Prompt(p.prompt, 4) for p in prompts]),
                running.logprobs([p.prompt for p in prompts], [range(4, 20)] * len(prompts)),
                running.force([p.prompt for p in prompts], [p.gold for p in prompts])))
            running.close()
        (found, scores, forced), (expected, scores_there, forced_there) = said
        under = "ablated" if len(ablation) else "untouched"
        yield _same_answers([c.token_ids for c in found], [c.token_ids for c in expected], under)
        for name, one, other in (
                ("log-probabilities", scores, scores_there),
                ("forced log-probabilities", [f.logprobs[:1] for f in forced],
                 [f.logprobs[:1] for f in forced_there])):
            yield Figure(f"{name}, {under}",
                         float(np.abs(np.array(one) - np.array(other)).max()), TOLERANCE)


def rankings(model: str, device: str) -> Iterator[Figure]:
    """Neurons that bfloat16 and float32 rank first, on the GPU."""
    prompts = prompts_of(model, 16)
    low, full = (score_matrix(on(model, device, dtype), prompts).ravel()
                 for dtype in ("bfloat16", "float32"))
    count = round(FIRST * len(full))
    first = [set(np.argsort(-scores, kind="stable")[:count].tolist()) for scores in (low, full)]
    yield Figure(f"share of the first {count} neurons in both",
                 len(first[0] & first[1]) / count, OVERLAP, agreement=True)


CHECKS: dict[str, Callable[[str, str], Iterator[Figure]]] = {
    check.__name__: check for check in (attribution, masks, replay, grid, engine, rankings)}


def _stops(loaded: Loaded) -> tuple[int, ...]:
    from prunelib.engines.limits import stop_token_ids

    return tuple(stop_token_ids(loaded.tokenizer, loaded.info.ends))


def _masked(loaded: Loaded, ablation: Ablation) -> Tensor:
    """Log-probabilities after eight prompts under an ablation, ``[prompts, vocabulary]``."""
    import torch

    from prunelib.attribution.prefix_replay import last_logits

    batch = pad_left([p.prompt for p in prompts_of(loaded.info.id, 8)], loaded.device)
    with ablation.applied(loaded) as changed, torch.no_grad():
        return last_logits(changed, batch).log_softmax(-1)


def _relative(found: Array, expected: Array) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _largest(found: Tensor, expected: Tensor) -> float:
    return float((found.cpu() - expected.cpu()).abs().max())


def _same_answers(found: Sequence[Any], expected: Sequence[Any], under: str = "") -> Figure:
    same = sum(list(a) == list(b) for a, b in zip(found, expected, strict=True))
    return Figure(f"share of equal answers{under and ', '}{under}", same / len(expected), 1.0,
                  agreement=True)
