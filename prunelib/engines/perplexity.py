"""Perplexity: how probable running text is to a model, so that a repair is not a broken model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelib.engines.limits import model_limits
from prunelib.errors import UnitError
from prunelib.interventions.ablation import BASELINE, Ablation, ActivationMasks
from prunelib.tasks.tokenization import token_ids

if TYPE_CHECKING:
    from torch import Tensor

    from prunelib.models import Loaded

#: Tokens of a window where a model's context is longer, or endless.
WINDOW = 1024


@dataclass(frozen=True)
class Likelihood:
    """How probable one text is.

    Attributes:
        nll: negative natural log-probability, summed over the scored tokens.
        tokens: how many were scored: all but the first (or the context), and but the unknown ones.
        unknown: other tokens that the tokenizer does not know (``<unk>``). They stand
            in the context of the others but are not scored themselves: their probability says
            nothing about the text. A model is only comparable with itself on such a text.
        characters: length of the text, without its context.
    """

    nll: float
    tokens: int
    unknown: int
    characters: int

    @property
    def perplexity(self) -> float:
        """Exponential of the mean over tokens; comparable between models of one tokenizer only."""
        return math.exp(self.nll / self.tokens)


def perplexity(
    loaded: Loaded,
    texts: Sequence[str],
    ablation: Ablation = BASELINE,
    window: int = WINDOW,
    contexts: Sequence[str] | None = None,
    templated: bool = False,
) -> list[Likelihood]:
    """Likelihood of each text under an ablation, in windows that overlap by half.

    The first window starts at the text's beginning (with what the tokenizer puts before it).
    Every later one starts half a window further and scores its second half alone, so that every
    token is scored once and, after the first window, sees at least half a window before it.
    One forward pass for each window.

    Args:
        loaded: the model; left as it was.
        texts: running text.
        ablation: what is switched off meanwhile.
        window: tokens of a window, 2 or more, lowered to the model's context.
        contexts: what comes before each text, and is not scored itself.
        templated: whether a chat template wrote them, and with them all special tokens.

    Raises:
        UserError: a component of the ablation is not in this model.
        UnitError: a text has no token that could be scored, or none of its own after its
            context.
    """
    context, _ = model_limits(loaded.info)
    with ActivationMasks(loaded) as masks:
        masks.set(ablation)
        return [_likelihood(loaded, before, text, min(window, context), templated)
                for before, text in zip(contexts or [""] * len(texts), texts, strict=True)]


def _likelihood(loaded: Loaded, before: str, text: str, window: int, templated: bool
                ) -> Likelihood:
    import torch

    whole = token_ids(before + text, loaded.tokenizer, templated)
    start = token_ids(before, loaded.tokenizer, templated) if before else whole[:1]
    if whole[: len(start)] != start:
        raise UnitError(f"the tokenizer merges the end of a context with {text[:20]!r}")
    ids = torch.tensor(whole, device=loaded.device)
    targets, unk = ids[len(start):], loaded.tokenizer.unk_token_id
    if unk == loaded.tokenizer.eos_token_id:
        unk = None  # GPT-2 and its like: they know every text
    unknown = torch.zeros_like(targets, dtype=torch.bool) if unk is None else targets == unk
    if not len(targets) or bool(unknown.all()):
        raise UnitError(f"no token of the text {text[:20]!r} can be scored")
    logprobs = torch.cat(list(_windows(loaded, ids, window)))[-len(targets):]
    return Likelihood(
        nll=-float(logprobs[~unknown].double().sum()),
        tokens=int((~unknown).sum()),
        unknown=int(unknown.sum()),
        characters=len(text),
    )


def _windows(loaded: Loaded, ids: Tensor, window: int) -> Iterator[Tensor]:
    """Log-probabilities of ``ids[1:]``, in their order, window after window."""
    import torch

    half = window // 2
    done = 1
    for start in range(0, len(ids), half):
        part = ids[start : start + window]
        stop = start + len(part)
        with torch.inference_mode():
            logits = loaded.model(input_ids=part[None], use_cache=False).logits[0]
            new = logits[done - 1 - start : stop - 1 - start].float().log_softmax(-1)
            yield new.gather(1, ids[done:stop, None])[:, 0]
        done = stop
        if done == len(ids):
            return
