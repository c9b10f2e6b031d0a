"""One layer of the grid: every rate in the same batch, on top of a replayed prefix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunelib.attribution.prefix_replay import KeysAndValues, masked_rows
from prunelib.components import Site
from prunelib.interventions.ablation import Ablation
from prunelib.models import Loaded
from prunelib.search.decoding import Continuing
from prunelib.tasks.tokenization import Encoded, pad_left

if TYPE_CHECKING:
    from torch import Tensor

#: Token ids of the answers that a prompt can have.
Options = Sequence[tuple[int, ...]]
#: Stands for a token where an option is complete.
_COMPLETE = -1
#: Rows (rate × prompt) of one forward pass; fixed, so that results do not depend on the worker.
GRID_ROWS = 128


@dataclass(frozen=True)
class Answers:
    """What every ablation makes of every prompt.

    Attributes:
        tokens: greedy continuations without what stopped them, ``[ablation][prompt]`` → ids.
        margins: log-probability (natural) of the gold answer's first token minus that of any of
            the demonstrations' answers' first tokens that differ from it (log of their summed
            probabilities); without such tokens the former alone. ``[ablations, prompts]``.
    """

    tokens: list[list[list[int]]]
    margins: NDArray[np.float64]


def greedy_rows(
    loaded: Loaded,
    layer: int,
    ablations: Sequence[Ablation],
    prompts: Sequence[Encoded],
    max_tokens: int,
    stop: Sequence[int],
    rows: int = GRID_ROWS,
    options: Sequence[Options] | None = None,
) -> Answers:
    """Greedy continuations and margins of every prompt under every ablation.

    Each ablation is of this one layer (or empty) and becomes one mask row per prompt. The
    first token, where nearly all the work is, starts at ``layer`` from streams computed once for
    all ablations; for later tokens the model reads the token before alone, with the keys and values
    that were kept of the rest.
    ``rows`` (ablation × prompt) go through the model at a time, but at least one prompt; prompts
    of like length together, the longest first. With
    ``options``, those of each prompt, a continuation is one of them: at every token the most
    probable one that some of them goes on with, which among options whose first tokens differ
    costs no more passes than their first token does.
    """
    import torch

    tokens: list[list[list[int]]] = [[[] for _ in prompts] for _ in ablations]
    margins = np.empty((len(ablations), len(prompts)))
    at_once = max(1, rows // len(ablations))
    site = next((s for a in ablations for s in a.sites), loaded.adapter.site)
    keep = _masks(loaded, layer, ablations, site)
    ordered = sorted(range(len(prompts)), key=lambda i: -len(prompts[i].prompt))
    for start in range(0, len(prompts), at_once):
        some = ordered[start : start + at_once]
        with torch.no_grad():
            found, values = _continue(
                loaded, layer, keep, site, [prompts[i] for i in some], max_tokens,
                set(stop) | {_COMPLETE}, options and [options[i] for i in some])
        margins[:, some] = values.reshape(len(ablations), len(some))
        for row, answer in enumerate(found):
            tokens[row // len(some)][some[row % len(some)]] = answer
    return Answers(tokens, margins)


def _masks(loaded: Loaded, layer: int, ablations: Sequence[Ablation], site: Site) -> Tensor:
    """One row of ones and zeros per ablation, ``[ablations, neurons]``."""
    import torch

    weight = next(loaded.model.parameters())
    keep = torch.ones(len(ablations), loaded.info.components(site), dtype=weight.dtype,
                      device=weight.device)
    for row, ablation in zip(keep, ablations, strict=True):
        found = ablation.by_layer(site)
        if set(found) - {layer} or set(ablation.sites) - {site}:
            raise ValueError(f"an ablation reaches beyond {site} of the grid's layer {layer}")
        row[found.get(layer, [])] = 0
    return keep


def _continue(
    loaded: Loaded,
    layer: int,
    keep: Tensor,
    site: Site,
    prompts: Sequence[Encoded],
    max_tokens: int,
    stop: set[int],
    options: Sequence[Options] | None,
) -> tuple[list[list[int]], NDArray[np.float64]]:
    """Greedy tokens and margins of ablation × prompt rows, by ablation, then by prompt."""
    batch = pad_left([p.prompt for p in prompts], loaded.device)
    # Its layers have no attention, or only one token is asked for.
    kept = KeysAndValues.empty() if loaded.adapter.attention and max_tokens > 1 else None
    with masked_rows(loaded, layer, site, batch, kept) as under:
        logits = under(keep)
    rest = Continuing(loaded, layer, site, keep, prompts, batch, kept)
    margins = _margins(logits, list(prompts) * len(keep))
    answers: list[list[int]] = [[] for _ in range(len(logits))]
    running = list(range(len(logits)))
    following = _best(logits, running, answers, options)
    for step in range(max_tokens):
        for row, token in zip(list(running), following, strict=True):
            if token in stop:
                running.remove(row)
            else:
                answers[row].append(token)
        if options is not None:  # nothing is asked about a row with one option left
            for row in list(running):
                fitting = _fitting(options[row % len(prompts)], answers[row])
                if len(fitting) == 1:
                    answers[row] = list(fitting[0])
                    running.remove(row)
        if not running or step == max_tokens - 1:
            break
        following = _best(rest.after(running, answers), running, answers, options)
    return answers, margins


def _best(logits: Tensor, rows: Sequence[int], answers: Sequence[Sequence[int]],
          options: Sequence[Options] | None) -> list[int]:
    """The next token of each row: of all, or of those with which its options go on."""
    if options is None:
        return [int(token) for token in logits.argmax(-1)]
    best = []
    for row, of_row in zip(rows, logits, strict=True):
        begun = answers[row]
        fitting = _fitting(options[row % len(options)], begun)
        allowed = sorted({option[len(begun)] for option in fitting if len(option) > len(begun)})
        best.append(allowed[int(of_row[allowed].argmax())] if allowed else _COMPLETE)
    return best


def _fitting(options: Options, begun: Sequence[int]) -> list[tuple[int, ...]]:
    return [option for option in options if option[: len(begun)] == tuple(begun)]


def _margins(logits: Tensor, prompts: Sequence[Encoded]) -> NDArray[np.float64]:
    """Margin (:class:`Answers`) of every row, ``[rows]``."""
    logprobs = logits.float().log_softmax(-1)
    margins = np.empty(len(prompts))
    for row, prompt in enumerate(prompts):
        margins[row] = logprobs[row, prompt.first_gold]
        if prompt.first_copies:
            margins[row] -= float(logprobs[row, list(prompt.first_copies)].logsumexp(0))
    return margins
