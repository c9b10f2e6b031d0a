"""In-context heads: which heads carry the labels of the demonstrations (formulas.md §4.2).

Two scores say how much a head does for each of two labels: how much its output raises the
log-probability of the label where it enters the stream, and how many prompts of the label are
answered right without it. The best of both are the in-context heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from prunelib.attribution.prefix_replay import last_logits, masked_rows
from prunelib.components import Component
from prunelib.errors import UserError
from prunelib.heads.labelled import (
    LABELLED_ROWS,
    Array,
    LabelledPrompt,
    batched,
    label_logprobs,
    means_by_label,
    of_labels,
    predicted,
    right,
)
from prunelib.models import Loaded
from prunelib.models.head_access import final_norm, heads_of, out_columns, unembedding

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

#: How many heads of each score are candidates, and how many of each label are taken (formulas.md
#: §4.2: 10 and 6 of Llama-7B's 1024 and GPT-J's 448 heads).
TOP, EACH = 10, 6


def frozen_norm(norm: nn.Module, final: Tensor) -> tuple[Tensor, Tensor]:
    """The final norm with the statistics of the streams that it normalises, as a linear map.

    After the authors' code, which keeps the root mean square of the true last stream
    (formulas.md §4.2). A LayerNorm, which they do not have, keeps its mean and its variance.

    Args:
        norm: an RMSNorm or a LayerNorm.
        final: what enters it at the positions that matter, ``[rows, width]``.

    Returns:
        Gain and shift, ``[rows, width]`` each: the norm of ``v`` is ``v * gain + shift``.
    """
    import torch

    own: Any = norm
    eps = float(getattr(own, "variance_epsilon", None) or own.eps)
    if isinstance(norm, torch.nn.LayerNorm):
        mean = final.mean(-1, keepdim=True)
        gain = own.weight * (final.var(-1, unbiased=False, keepdim=True) + eps).rsqrt()
        return gain, own.bias - mean * gain
    # The norm of ones is the module's own gain, which some families write as 1 + weight.
    weight = norm(torch.ones_like(final)) * (1 + eps) ** 0.5
    gain = weight * (final.square().mean(-1, keepdim=True) + eps).rsqrt()
    return gain, torch.zeros_like(gain)


class LastPositions:
    """What enters layers, out-projections and the final norm at the prompts' ends.

    Attributes:
        streams: layer → ``[rows, width]``.
        heads: layer → what each head gives, ``[rows, heads, size]``.
        final: ``[rows, width]``.
    """

    def __init__(self) -> None:
        self.streams: dict[int, Tensor] = {}
        self.heads: dict[int, Tensor] = {}
        self.final: torch.Tensor

    def read(self, loaded: Loaded, prompts: Sequence[LabelledPrompt]) -> Tensor:
        """Run the model on the prompts; their last logits, ``[rows, vocabulary]``."""
        import torch

        assert loaded.adapter.heads is not None  # noqa: S101
        shape = (loaded.info.heads, loaded.info.head_size)

        def stream(i: int) -> Any:
            def hook(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
                whole = args[0] if args else kwargs["hidden_states"]
                self.streams[i] = whole[:, -1].to(loaded.device)
            return hook

        def heads(i: int) -> Any:
            def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
                self.heads[i] = args[0][:, -1].reshape(-1, *shape)
            return hook

        def final(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            self.final = args[0][:, -1].to(loaded.device)

        with ExitStack() as stack:
            for i, layer in enumerate(loaded.adapter.layers(loaded.model)):
                out = layer.get_submodule(loaded.adapter.heads.out)
                stack.callback(
                    layer.register_forward_pre_hook(stream(i), with_kwargs=True).remove)
                stack.callback(out.register_forward_pre_hook(heads(i)).remove)
            stack.callback(final_norm(loaded).register_forward_pre_hook(final).remove)
            with torch.inference_mode():
                return last_logits(loaded, batched(loaded, prompts))


def log_probability_increase(
    loaded: Loaded, prompts: Sequence[LabelledPrompt], rows: int = LABELLED_ROWS
) -> tuple[Array, Array]:
    """How much the output of each head raises the log-probability of the predicted label.

    S = log p(b | o + L) - log p(b | L) at the last position, with L the stream that enters the
    head's layer, o what the head adds to it, b the label that the model predicts, and
    p(· | v) = softmax(E norm(v)) over the whole vocabulary, with the final norm frozen
    (formulas.md §4.2). The bias of the out-projection belongs to no head and is left out.

    Args:
        loaded: the model.
        prompts: from :func:`~prunelib.heads.labelled.encode_labelled`.
        rows: prompts of one forward pass.

    Returns:
        Means over the prompts of which the first and the second label is predicted, in nats, and
        their standard errors over queries, ``[2, layers, heads]`` each; nan for a label that is
        never predicted.

    Raises:
        UserError: the model has no heads, or no final norm that can be frozen.
    """
    scores, said = [], []
    for start in range(0, len(prompts), rows):
        some = prompts[start : start + rows]
        logprobs, increase = _increase(loaded, some)
        said.append(predicted(logprobs))
        scores.append(increase)
    return means_by_label(np.concatenate(said), np.concatenate(scores), prompts)


def _increase(loaded: Loaded, prompts: Sequence[LabelledPrompt]) -> tuple[Array, Array]:
    """Log-probabilities of the labels ``[rows, 2]``, and scores ``[rows, layers, heads]``."""
    import torch

    ends = LastPositions()
    heads_of(loaded)
    known = ends.read(loaded, prompts).log_softmax(-1)
    labels = torch.tensor([prompt.labels for prompt in prompts], device=known.device)
    logprobs = known.gather(1, labels).double().cpu().numpy()
    chosen = labels[torch.arange(len(labels)), torch.tensor(predicted(logprobs))]
    gain, shift = frozen_norm(final_norm(loaded), ends.final)
    def logprob(streams: Tensor) -> Tensor:
        """Of the chosen labels, ``[rows, n]`` from ``[rows, n, width]``."""
        logits: Tensor = unembedding(loaded)(streams * gain[:, None] + shift[:, None])
        wanted = chosen[:, None, None].expand(-1, streams.shape[1], 1)
        return logits.log_softmax(-1).gather(-1, wanted)[..., 0]

    found = []
    with torch.inference_mode():
        for layer, stream in ends.streams.items():
            added = torch.einsum("rhs,hsw->rhw", ends.heads[layer], out_columns(loaded, layer))
            before = stream[:, None]
            found.append(logprob(before + added.to(before.device)) - logprob(before))
        return logprobs, torch.stack(found, 1).double().cpu().numpy()


def accuracy_changes(
    loaded: Loaded,
    prompts: Sequence[LabelledPrompt],
    layers: Sequence[int] | None = None,
    rows: int = LABELLED_ROWS,
) -> tuple[Array, Array]:
    """Accuracy without each head minus accuracy with it, by gold label: the causal score.

    The paper looks at "deep" layers and does not say which these are (formulas.md §4.2): all of
    them unless ``layers`` are given.

    Returns:
        The changes and their standard errors over queries, ``[2, layers, heads]`` each. A change is
        negative where the head helps; nan in layers not asked for, and for a label that is nowhere
        gold.

    Raises:
        UserError: the model has no attention heads, or not such a layer.
    """
    info = loaded.info
    heads_of(loaded)
    chosen = range(info.layers) if layers is None else layers
    if missing := sorted(set(chosen) - set(range(info.layers))):
        raise UserError(f"layer {missing[0]} is not in a model of {info.layers} layers")
    changes, errors = (np.full((2, info.layers, info.heads), np.nan) for _ in range(2))
    gold = np.array([prompt.gold for prompt in prompts])
    before = right(prompts, label_logprobs(loaded, prompts, rows=rows)).astype(float)
    for layer in chosen:
        after = np.stack([right(prompts, logprobs) for logprobs in
                          _without_each(loaded, layer, prompts, rows)], 1)
        changes[:, layer], errors[:, layer] = means_by_label(gold, after - before[:, None], prompts)
    return changes, errors


def _without_each(loaded: Loaded, layer: int, prompts: Sequence[LabelledPrompt], rows: int
                  ) -> Array:
    """Log-probabilities of both labels without each head of a layer, ``[heads, prompts, 2]``."""
    import torch

    heads = loaded.info.heads
    keep = 1 - torch.eye(heads, dtype=next(loaded.model.parameters()).dtype, device=loaded.device)
    at_once, found = max(1, rows // heads), []
    for start in range(0, len(prompts), at_once):
        some = prompts[start : start + at_once]
        with masked_rows(loaded, layer, "head", batched(loaded, some)) as under:
            values = [of_labels(under(part), [*some] * len(part))
                      for part in (keep[i : i + rows] for i in range(0, heads, rows))]
        found.append(np.concatenate(values).reshape(heads, len(some), 2))
    return np.concatenate(found, axis=1)


def in_context_heads(
    causal: Array, increase: Array, top: int = TOP, each: int = EACH
) -> tuple[tuple[Component, ...], tuple[Component, ...]]:
    """The heads of the first label and those of the second, best first (formulas.md §4.2).

    The paper takes the top 10 heads of each score and merges them to 6 of each label; how, it
    does not say. Here, for each label, the candidates are the ``top`` heads by either score that
    do anything for it (the score is positive), and are sorted by the sum of their ranks in both
    scores; a rank beyond ``top`` counts as ``top``, heads with equal scores have the same rank,
    and between equal sums the log-probability decides. A head that both labels want goes to the
    one in whose order its sum is lower. A label may get fewer than ``each`` heads.

    Args:
        causal: the changes of :func:`accuracy_changes`, ``[2, layers, heads]``.
        increase: the means of :func:`log_probability_increase`, the same shape.
        top: how many heads of each score are candidates.
        each: the most heads of one label.
    """
    wanted = []
    for label in (0, 1):
        helps = [np.nan_to_num(-causal[label]), np.nan_to_num(increase[label])]
        ranks = [np.minimum(rankdata(-score, method="min").reshape(score.shape) - 1, top)
                 for score in helps]
        for layer, head in np.argwhere(
                ((ranks[0] < top) & (helps[0] > 0)) | ((ranks[1] < top) & (helps[1] > 0))):
            merit = int(ranks[0][layer, head] + ranks[1][layer, head])
            wanted.append((merit, -helps[1][layer, head], label, int(layer), int(head)))
    found: tuple[list[Component], list[Component]] = ([], [])
    for _, _, label, layer, head in sorted(wanted):
        component = Component(layer, "head", head)
        if len(found[label]) < each and component not in found[0] + found[1]:
            found[label].append(component)
    return tuple(found[0]), tuple(found[1])
