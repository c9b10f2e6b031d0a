"""The engine that runs everywhere and everything: plain transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from prunelib.engines.base import Canary, Completion, Forced, Prompt
from prunelib.engines.canary import check_canary
from prunelib.engines.limits import (
    check_scorable,
    cut,
    end_token_ids,
    forced_texts,
    model_limits,
    prompt_error,
    stop_token_ids,
    until_stop,
)
from prunelib.errors import EngineDeadError
from prunelib.interventions.ablation import BASELINE
from prunelib.interventions.base import Intervention
from prunelib.interventions.registry import KINDS
from prunelib.models import Loaded, ModelInfo, load
from prunelib.models.readout import read_out_together
from prunelib.tasks.tokenization import PAD

if TYPE_CHECKING:
    from torch import Tensor

#: Padded tokens of one batch, prompt and completion together, unless memory is short.
BATCH_TOKENS = 8192
#: Logits that are kept at a time, for each of those tokens: 0.5 GiB in float32.
_LOGITS_PER_TOKEN = 16384


class TransformersEngine:
    """Greedy completions and log-probabilities from a transformers model in this process.

    Args:
        model: the base model, or one that is in memory already.
        dtype: of weights and activations, where the model is not in memory yet.
    """

    kind = "transformers"
    runs = frozenset(KINDS)

    def __init__(self, model: ModelInfo | Loaded, dtype: str = "float32") -> None:
        self._base = model if isinstance(model, Loaded) else load(model, dtype)
        #: The base model under the live intervention.
        self._loaded = self._base
        self._dtype = str(self._loaded.model.dtype).removeprefix("torch.")
        self._context, self._vocabulary = model_limits(self._loaded.info)
        self._stops = stop_token_ids(self._loaded.tokenizer, self._loaded.info.ends)
        self._ends = end_token_ids(self._loaded.tokenizer, self._loaded.info.ends)
        self._exit = ExitStack()
        #: Digest and model of what was trained last: runs go back and forth to the base model.
        self._trained: tuple[str, Loaded] | None = None
        self._live: Intervention | None = BASELINE
        self.batch_tokens = BATCH_TOKENS

    def switch(self, intervention: Intervention, canary: Canary | None = None) -> None:
        """Make ``intervention`` the live one. No state outlives a call, so none is to be forgotten.

        Raises:
            UserError: it cannot be done to this model; the old intervention stays live.
            EngineDeadError: the canary does not agree; nothing is computed until a switch works.
            UnitError: the canary's prompt fills the context, or an id of it does not exist.
        """
        intervention.check(self._base.info)
        self._undo()
        self._loaded = self._under(intervention)
        if canary is not None:
            answer = self._score([canary.token_ids], [canary.candidates])[0]
            check_canary(canary, answer, self._dtype)
        self._live = intervention

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """Greedy completions, in the order of the prompts; a bad prompt gives an error row."""
        self._check_live()
        done: dict[int, Completion] = {}
        # By what ends them: one batch has one way to end.
        good: dict[tuple[str, ...] | None, dict[int, tuple[int, int]]] = {}
        for i, prompt in enumerate(prompts):
            error = prompt_error(prompt, self._context, self._vocabulary)
            if error is None:
                good.setdefault(prompt.until, {})[i] = len(prompt.token_ids), prompt.max_tokens
            else:
                done[i] = Completion((), "", error)
        for until, sizes in good.items():
            for rows in _batches(sizes, self.batch_tokens):
                done.update(zip(rows, self._complete([prompts[i] for i in rows], until),
                                strict=True))
        return [done[i] for i in range(len(prompts))]

    def logprobs(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]],
        begun: Sequence[int] | None = None,
    ) -> list[list[float]]:
        """Next-token log-probabilities (natural, full vocabulary) of each prompt's candidates.

        Raises :class:`~prunelib.errors.UnitError` if a prompt fills the context or an id does not
        exist.
        """
        self._check_live()
        return self._score(prompts, candidates, begun)

    def force(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]],
        fill: bool = False,
    ) -> list[Forced]:
        """Teacher forcing: log-probabilities of each prompt's continuation, in their order.

        Continuations that differ in their last token alone share a row. A bad prompt gives an
        error of that one alone.
        """
        self._check_live()
        texts, done = forced_texts(prompts, continuations, self._context, self._vocabulary, fill)
        rows = list(texts)
        longest = [max(len(continuations[i]) for i in texts[row]) for row in rows]
        sizes = {place: (len(row), 1) for place, row in enumerate(rows)}
        for batch in _batches(sizes, self.batch_tokens):
            # Logits are what takes memory where a vocabulary is large.
            most = self.batch_tokens * _LOGITS_PER_TOKEN // self._vocabulary
            at_once = max(1, most // max(longest[place] for place in batch))
            for start in range(0, len(batch), at_once):
                some = [(rows[place], continuations[i], i)
                        for place in batch[start : start + at_once] for i in texts[rows[place]]]
                done.update(self._forced(some))
        return [done[i] for i in range(len(prompts))]

    def close(self) -> None:
        """Undo what was done to the model. Before it is used again, the engine is switched."""
        self._undo()
        self._trained = None

    def _under(self, intervention: Intervention) -> Loaded:
        if self._trained is not None and self._trained[0] == intervention.digest:
            return self._trained[1]
        if intervention.trains:
            self._trained = None  # before the memory of the next is taken
        loaded = self._exit.enter_context(intervention.applied(self._base))
        if intervention.trains:
            self._trained = intervention.digest, loaded
        return loaded

    def _undo(self) -> None:
        self._live = None
        self._loaded = self._base
        self._exit.close()

    def _score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]],
        begun: Sequence[int] | None = None,
    ) -> list[list[float]]:
        check_scorable(prompts, candidates, self._context, self._vocabulary)
        scores: dict[int, list[float]] = {}
        for rows in _batches({i: (len(p), 1) for i, p in enumerate(prompts)}, self.batch_tokens):
            ends = [len(prompts[i]) - 1 - (begun[i] if begun else 0) for i in rows]
            with self._loaded.answers.after(ends):
                found = self._next_token([prompts[i] for i in rows])
            for i, logprobs in zip(rows, found, strict=True):
                scores[i] = logprobs[list(candidates[i])].tolist()
        return [scores[i] for i in range(len(prompts))]

    def _check_live(self) -> None:
        if self._live is None:
            raise EngineDeadError("this engine is closed, or its last switch failed")

    def _complete(self, prompts: list[Prompt], until: tuple[str, ...] | None) -> list[Completion]:
        """Complete one batch; rows are padded on the left, so that answers start together."""
        import torch
        from transformers import GenerationConfig

        tokenizer: Any = self._loaded.tokenizer
        ids, mask = self._pad([p.token_ids for p in prompts], left=True)
        stops = self._stops if until is None else self._ends
        config = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            max_new_tokens=max(p.max_tokens for p in prompts),
            eos_token_id=stops,
            pad_token_id=PAD,
        )
        ends = [ids.shape[1] - 1] * len(prompts)
        with (torch.inference_mode(), self._loaded.answers.after(ends),
              read_out_together(self._loaded.model)):
            output: Any = self._loaded.model.generate(  # type: ignore[operator]
                input_ids=ids, attention_mask=mask, generation_config=config,
                stopping_criteria=[_Until(until, tokenizer, ids.shape[1])] if until else None,
            )
        answers = [
            until_stop(row, stops, prompt.max_tokens)
            for row, prompt in zip(output[:, ids.shape[1] :].tolist(), prompts, strict=True)
        ]
        texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [Completion(answer, cut(text, until))
                for answer, text in zip(answers, texts, strict=True)]

    def _next_token(self, prompts: list[Sequence[int]]) -> Tensor:
        """Log-probabilities ``[rows, vocabulary]`` after the last token of each prompt.

        Padding is on the right, where causal attention never looks from a prompt's own tokens;
        logits are computed at the positions where some prompt of the batch ends, no others.
        """
        import torch

        ids, mask = self._pad(prompts, left=False)
        lengths = torch.tensor([len(p) for p in prompts], device=ids.device)
        ends, which = torch.unique(lengths - 1, return_inverse=True)
        with torch.inference_mode():
            logits = self._loaded.model(
                input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=ends
            ).logits
            rows: Tensor = logits[torch.arange(len(prompts), device=ids.device), which]
            return rows.float().log_softmax(dim=-1)

    def _forced(self, some: list[tuple[tuple[int, ...], Sequence[int], int]]
                ) -> dict[int, Forced]:
        """Score (tokens that the model reads, continuation, place) in one forward pass.

        The tokens end with all of the continuation but its last one.
        """
        import torch

        # Where a prompt ends matters to a steering.
        texts = list(dict.fromkeys((text, len(text) - len(answer)) for text, answer, _ in some))
        row_of = {text: row for row, text in enumerate(texts)}
        ids, mask = self._pad([text for text, _ in texts], left=False)
        rows: list[int] = []
        places: list[int] = []
        targets: list[int] = []
        for text, continuation, _ in some:
            first = len(text) - len(continuation)
            rows += [row_of[text, first]] * len(continuation)
            places += range(first, len(text))
            targets += continuation
        kept, which = torch.unique(torch.tensor(places, device=ids.device), return_inverse=True)
        ends = [end for _, end in texts]
        with torch.inference_mode(), self._loaded.answers.after(ends):
            logits = self._loaded.model(
                input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=kept
            ).logits[torch.tensor(rows, device=ids.device), which].float()
            found = logits.gather(1, torch.tensor(targets, device=ids.device)[:, None])[:, 0]
            logprobs = (found - logits.logsumexp(-1)).tolist()
            best = logits.argmax(-1).tolist()
        done: dict[int, Forced] = {}
        start = 0
        for _, continuation, place in some:
            stop = start + len(continuation)
            done[place] = Forced(tuple(logprobs[start:stop]), tuple(best[start:stop]))
            start = stop
        return done

    def _pad(self, prompts: Sequence[Sequence[int]], *, left: bool) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask, both ``[rows, longest]``."""
        import torch

        longest = max(len(p) for p in prompts)
        ids, mask = [], []
        for prompt in prompts:
            fill = longest - len(prompt)
            before, after = (fill, 0) if left else (0, fill)
            ids.append([PAD] * before + list(prompt) + [PAD] * after)
            mask.append([0] * before + [1] * len(prompt) + [0] * after)
        device = self._loaded.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


class _Until:
    """Whether each row's completion, which begins in a column, has a text that ends it."""

    def __init__(self, until: Sequence[str], tokenizer: Any, start: int) -> None:
        self._until, self._tokenizer, self._start = until, tokenizer, start

    def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        import torch

        texts = self._tokenizer.batch_decode(ids[:, self._start :], skip_special_tokens=True)
        return torch.tensor([cut(text, self._until) != text for text in texts], device=ids.device)


def _batches(sizes: dict[int, tuple[int, int]], tokens: int) -> Iterator[list[int]]:
    """Rows grouped by length, longest first (memory runs out at once or never).

    Args:
        sizes: row → (prompt tokens, tokens to come).
        tokens: the most padded tokens of a batch.
    """
    batch: list[int] = []
    widest = 0
    for row in sorted(sizes, key=lambda i: sizes[i], reverse=True):
        wider = max(widest, sum(sizes[row]))
        if batch and wider * (len(batch) + 1) > tokens:
            yield batch
            batch, wider = [], sum(sizes[row])
        batch.append(row)
        widest = wider
    if batch:
        yield batch
