"""Induction scores of attention heads: prefix matching and copying (formulas.md §3.3).

Both are read from the model's own modules by hooks, in transformers' eager attention, the one
implementation that gives attention probabilities. Nothing of a forward pass is written anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

from prunelib.errors import UserError
from prunelib.heads.sequences import RandomSequence
from prunelib.models.head_access import eager_attention, heads_of, unembedding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor, nn

    from prunelib.models import Loaded

#: What a head says at a position: its output there (as the paper is written), or the value of
#: the position itself, whatever the head attends to (as its code was released).
Variant = Literal["attention_weighted", "own_value"]


def prefix_matching(loaded: Loaded, sequences: Sequence[RandomSequence]) -> NDArray[np.float64]:
    """How much each head attends to what followed the current token earlier (formulas.md §3.3).

    :func:`matched_attention` of each sequence; the score is the mean over them.

    Args:
        loaded: the model; left as it was.
        sequences: with two blocks or more each.

    Returns:
        ``[sequences, layers, heads]``, from 0 to 1.

    Raises:
        UserError: the model has no heads or does not give its attention; there are no sequences
            or one does not repeat its block.
    """
    import numpy as np

    _check(sequences, lambda repeats: repeats > 1, 4)
    return np.stack([_prefix_matching(loaded, sequence) for sequence in sequences])


def copying(
    loaded: Loaded, sequences: Sequence[RandomSequence], variant: Variant = "attention_weighted"
) -> NDArray[np.float64]:
    """How much each head raises the token that it attends to most (formulas.md §3.3).

    Every layer gets the input of the first one: embeddings, with whatever the model does to them
    before its first layer, and no output of layers below. What a head says there, zero-padded,
    goes through the output projection (with its bias) and the unembedding to probabilities over
    the vocabulary. Nothing comes in between, as in the paper: not the final norm, not the norm
    that Gemma 2 and 3 have behind their attention, not a soft cap of logits. Each sequence has
    its :func:`raised_share`; the score is the mean over them.

    Args:
        loaded: the model; left as it was.
        sequences: of one block each.
        variant: what a head says at a position.

    Returns:
        ``[sequences, layers, heads]``, from 0 to 1 (not rescaled to −1…1).

    Raises:
        UserError: the model has no heads or does not give its attention; there are no sequences
            or one repeats its block.
    """
    import numpy as np

    _check(sequences, lambda repeats: repeats == 1, 1)
    return np.stack([_copying(loaded, sequence.ids, variant) for sequence in sequences])


def matched_attention(attention: Tensor, sequence: RandomSequence) -> Tensor:
    """Attention that goes one further than to the earlier occurrences of the current token.

    Summed over these occurrences, averaged over the positions of all blocks but the first. The
    authors' code adds, at the last token of each block, the position after BOS; this does not.

    Args:
        attention: probabilities on that sequence, ``[heads, queries, keys]``.
        sequence: of two blocks or more.

    Returns:
        ``[heads]``: 1 for a perfect induction head, somewhat less than one over the length of a
        block for a head that attends equally to all that it may.
    """
    import torch

    length, positions = len(sequence.block), attention.shape[-1]
    found = torch.zeros(attention.shape[0], dtype=torch.float64, device=attention.device)
    for blocks in range(1, sequence.repeats):
        queries = torch.arange(len(sequence.start) + blocks * length, positions)
        found += attention[:, queries, queries - blocks * length + 1].double().sum(-1)
    return found / ((sequence.repeats - 1) * length)


def raised_share(probabilities: Tensor, attended: Tensor) -> Tensor:
    """Share of a head's raised tokens that is the token it attends to most.

    A token up to the current position is raised by as much as its probability exceeds the mean
    over these tokens. The share is 0 where none is raised. Its mean is taken over all positions
    but the first, which has no other token to choose: BOS, where there is one.

    Args:
        probabilities: of the token at each position, from what the head says at each position,
            ``[positions, positions]``.
        attended: the position attended to most from each position, ``[positions]``.

    Returns:
        A number from 0 to 1.
    """
    import torch

    seen = probabilities.double().tril()
    count = torch.arange(1, len(seen) + 1, device=seen.device)
    # Later tokens are zero here, so never above the mean.
    raised = (seen - (seen.sum(1) / count)[:, None]).relu()
    total = raised.sum(1)
    share = raised.gather(1, attended[:, None])[:, 0] / total.where(total > 0, 1)
    return share[1:].mean()


def retention(scores: ArrayLike, order: Sequence[int] | NDArray[np.intp]) -> NDArray[np.float64]:
    """Percentage of the heads' total score that is left while heads are removed (formulas.md §3.3).

    Args:
        scores: one number per head, of any shape.
        order: flat indices of the heads to remove, first to last; need not be all of them.
            ``importance.argsort(axis=None)`` removes the least important ones first.

    Returns:
        ``[len(order) + 1]``: after 0, 1, … heads.

    Raises:
        UserError: a head is not there or removed twice, or the scores add up to nothing.
    """
    import numpy as np

    flat, removed = np.ravel(np.asarray(scores, float)), np.asarray(order, int)
    if len(set(removed.tolist()) & set(range(flat.size))) != len(removed):
        raise UserError(f"the order names a head twice, or one that is not among {flat.size}")
    if not flat.sum() > 0:
        raise UserError("the scores of all heads add up to nothing: no share of it can be kept")
    never = np.delete(flat, removed).sum()
    kept = never + np.append(np.cumsum(flat[removed][::-1])[::-1], 0)
    percent: NDArray[np.float64] = 100 * kept / kept[0]
    return percent


def _check(sequences: Sequence[RandomSequence], good: Callable[[int], bool], repeats: int) -> None:
    if not sequences or not all(good(sequence.repeats) for sequence in sequences):
        raise UserError(f"give sequences that were drawn with repeats={repeats}")


def _prefix_matching(loaded: Loaded, sequence: RandomSequence) -> NDArray[np.float64]:
    import torch

    found = _attention(loaded, sequence.ids, lambda each: matched_attention(each, sequence))
    scores: NDArray[np.float64] = torch.stack(found).cpu().numpy()
    return scores


def _copying(loaded: Loaded, ids: Sequence[int], variant: Variant) -> NDArray[np.float64]:
    import numpy as np
    import torch

    layers, heads = loaded.adapter.layers(loaded.model), heads_of(loaded)
    scores = np.zeros((loaded.info.layers, loaded.info.heads))
    with torch.inference_mode():
        for index, (said, attended) in enumerate(from_embeddings(loaded, ids, variant)):
            out = layers[index].get_submodule(heads.out)
            for head in range(loaded.info.heads):
                padded = torch.zeros_like(said)
                padded[:, head] = said[:, head]
                logits = _unembedded(loaded, out(padded.flatten(1)))
                probabilities = logits.softmax(-1, dtype=torch.float32)[:, list(ids)]
                scores[index, head] = raised_share(probabilities, attended[head]).item()
    return scores


def from_embeddings(
    loaded: Loaded, ids: Sequence[int], variant: Variant
) -> list[tuple[Tensor, Tensor]]:
    """What heads say and attend to when every layer reads the input of the first one.

    Returns:
        For each layer what each head says, ``[positions, heads, size]``, and the position that it
        attends to most, ``[heads, positions]``.
    """
    model, heads = loaded.model, heads_of(loaded)
    stream: dict[str, Tensor] = {}
    said: list[Tensor] = []

    def first_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (stream.setdefault("first", args[0]), *args[1:]), kwargs
        first = stream.setdefault("first", kwargs["hidden_states"])
        return args, kwargs | {"hidden_states": first}

    def own(_: nn.Module, __: object, projected: Tensor) -> None:
        said.append(heads.values(projected, model.config)[0])

    def mixed(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        said.append(args[0][0].reshape(-1, loaded.info.heads, loaded.info.head_size))

    with ExitStack() as stack:
        for layer in loaded.adapter.layers(model):
            handles = [layer.register_forward_pre_hook(first_input, with_kwargs=True)]
            if variant == "own_value":
                handles.append(layer.get_submodule(heads.value).register_forward_hook(own))
            else:
                handles.append(layer.get_submodule(heads.out).register_forward_pre_hook(mixed))
            for handle in handles:
                stack.callback(handle.remove)
        attended = _attention(loaded, ids, lambda attention: attention.argmax(-1))
    return list(zip(said, attended, strict=True))


def _attention(
    loaded: Loaded, ids: Sequence[int], read: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """What ``read`` makes of each layer's attention, ``[heads, queries, keys]``, on one row.

    Layer by layer, so that the probabilities of one layer alone are in memory.
    """
    import torch

    found: list[Tensor] = []

    def hook(_: nn.Module, __: object, output: tuple[Tensor, Tensor | None]) -> None:
        if output[1] is None:
            raise UserError(f"model '{loaded.info.id}' does not give its attention "
                            "probabilities; load it with attn_implementation='eager'")
        found.append(read(output[1][0]).to(loaded.device))

    heads_of(loaded)  # or there is no attention
    attention = str(loaded.adapter.attention)
    with ExitStack() as stack:
        stack.enter_context(eager_attention(loaded))
        for layer in loaded.adapter.layers(loaded.model):
            stack.callback(layer.get_submodule(attention).register_forward_hook(hook).remove)
        with torch.inference_mode():
            loaded.model(input_ids=torch.tensor([list(ids)], device=loaded.device),
                         use_cache=False)
    return found


def _unembedded(loaded: Loaded, stream: Tensor) -> Tensor:
    """Logits of a stream, ``[positions, vocabulary]``, without the final norm."""
    model: Any = loaded.model
    decoder = model.get_submodule(loaded.adapter.stack.rpartition(".")[0])
    # One OPT (350m) has embeddings narrower than its stream.
    project = getattr(decoder, "project_out", None)
    logits: Tensor = unembedding(loaded)(stream if project is None else project(stream))
    return logits
