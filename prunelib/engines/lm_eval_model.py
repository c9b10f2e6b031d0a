"""An engine as a model of lm-evaluation-harness, and a task's scores per example.

Prompts, demonstrations, filters and metrics are the harness's own. Texts become tokens as in its
class for transformers models (``HFLM``). Unlike there nothing is cut: what does not fit into a
model's context is an error of that example alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.api.model import LM, TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    resolve_max_length,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from prunelib.engines.base import Engine, Forced, Prompt
from prunelib.errors import one_line
from prunelib.identity import digest
from prunelib.models import ModelInfo
from prunelib.models.info import read_parsed
from prunelib.tasks.lm_eval_tasks import AskingOptions, build_requests
from prunelib.tasks.tokenization import token_ids

#: Most tokens of an answer where a task does not say, as in the harness.
_MOST_TOKENS = 256


@dataclass(frozen=True)
class ExampleScore:
    """One metric of one example, or of all together.

    Attributes:
        example: the document, from 0; ``None`` for all together.
        requests: digest of the texts that the model is asked about.
        target: the right answer, as the task gives it.
        responses: what the model answers to each request (JSON).
        metric: name of the metric, ``None`` after an error.
        filter: what the harness did with responses first.
        aggregation: how the harness puts the examples' values together.
        value: the metric's value, ``None`` where it is no number.
        parts: the value where it is no number (JSON).
        error: why there is none.
    """

    example: int | None
    requests: str | None = None
    target: str | None = None
    responses: str | None = None
    metric: str | None = None
    filter: str | None = None
    aggregation: str | None = None
    value: float | None = None
    parts: str | None = None
    error: str | None = None


class EngineLM(LM):  # type: ignore[misc]
    """A model of the harness that an engine answers for, under its live intervention.

    ``errors``: by ``id`` of a request, what was wrong with it; its answer then means nothing.
    """

    backend = "causal"
    _encode_pair = TemplateLM._encode_pair

    def __init__(self, engine: Engine, info: ModelInfo, tokenizer: Any) -> None:
        super().__init__()
        self.errors: dict[int, str] = {}
        self._engine = engine
        self.tokenizer = tokenizer
        self._longest = resolve_max_length(
            read_parsed(Path(info.path), info.trust_remote_code), tokenizer)

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        start = self.tokenizer.bos_token_id
        return self.eot_token_id if start is None else int(start)

    def apply_chat_template(self, chat_history: list[dict[str, str]],
                            add_generation_prompt: bool = True) -> str:
        """Turns as one text. Where the last one is begun already, it is left open."""
        return str(self.tokenizer.apply_chat_template(
            chat_history, tokenize=False, add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt))

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any
                   ) -> list[int]:
        """Token ids; no special tokens before a text that begins with the start token's."""
        started = string.startswith(self.tokenizer.decode([self.prefix_token_id]))
        bare = started if add_special_tokens is None else not add_special_tokens
        return token_ids(string, self.tokenizer, templated=bare)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether it is what the model would write."""
        pairs = [self._pair(*request.args) for request in requests]
        found = self._engine.force([context for context, _ in pairs],
                                   [continuation for _, continuation in pairs], fill=True)
        for request, forced in zip(requests, found, strict=True):
            self._note(request, forced.error)
        return [(math.fsum(forced.logprobs), forced.best == tuple(continuation))
                for forced, (_, continuation) in zip(found, pairs, strict=True)]

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of both; a continuation alone comes after the start token."""
        if context:
            pair: tuple[list[int], list[int]] = self._encode_pair(context, continuation)
            return pair
        alone, start = self.tok_encode(continuation, add_special_tokens=False), [
            self.prefix_token_id]
        return (start, alone[1:]) if alone[:1] == start else (start, alone)

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Log-likelihood of each text, in windows that its tokens are scored in once each."""
        windows: list[list[tuple[list[int], list[int]]]] = [
            [make_disjoint_window(window) for window in get_rolling_token_windows(
                self.tok_encode(request.args[0]), self.prefix_token_id, self._longest, 1)]
            for request in requests]
        flat = [window for some in windows for window in some]
        found = iter(self._engine.force([context for context, _ in flat],
                                        [continuation for _, continuation in flat], fill=True))
        sums = []
        for request, some in zip(requests, windows, strict=True):
            forced: list[Forced] = [next(found) for _ in some]
            self._note(request, next((one.error for one in forced if one.error), None))
            sums.append(math.fsum(value for one in forced for value in one.logprobs))
        return sums

    def generate_until(self, requests: list[Any]) -> list[str]:
        """What the model writes, up to a text that ends the answer or its end of text."""
        end = self.tokenizer.decode([self.eot_token_id])
        prompts = []
        for request in requests:
            text, given = request.args
            asked = dict(normalize_gen_kwargs(given, _MOST_TOKENS))
            if asked.get("do_sample"):
                self._note(request, "asks for answers that are drawn at random; only the most "
                                    "probable ones are written here")
            prompts.append(Prompt(tuple(self.tok_encode(text)), int(asked["max_gen_toks"]),
                                  tuple(handle_stop_sequences(asked.get("until"), end))))
        answers = self._engine.generate(prompts)
        for request, answer in zip(requests, answers, strict=True):
            self._note(request, answer.error)
        return [answer.text for answer in answers]

    def _note(self, request: Any, error: str | None) -> None:
        if error is not None:
            self.errors[id(request)] = error


def scores(engine: Engine, info: ModelInfo, tokenizer: Any, task: Any, options: AskingOptions
           ) -> list[ExampleScore]:
    """Ask a task of the harness, and every metric of each example.

    One more row has the value of all examples together for each metric of which that is no mean.
    Examples with an error are not in it.
    """
    model = EngineLM(engine, info, tokenizer)
    by_type: dict[str, list[Any]] = {}
    for request in build_requests(task, options, model.apply_chat_template):
        by_type.setdefault(request.request_type, []).append(request)
    for kind, requests in by_type.items():
        for request, response in zip(requests, getattr(model, kind)(requests), strict=True):
            request.resps = [response] * request.repeats  # the most probable one, each time
    task.apply_filters()
    return list(_rows(task, options, model.errors))


def _rows(task: Any, options: AskingOptions, errors: dict[int, str]) -> Iterator[ExampleScore]:
    by_doc: dict[int, list[Any]] = {}
    for request in sorted(task.instances, key=lambda request: request.idx):
        by_doc.setdefault(request.doc_id, []).append(request)
    together: dict[tuple[str, str], list[Any]] = {}
    for example, doc in task.doc_iterator(limit=options.examples):
        requests = by_doc[example]
        about = _about(task, example, doc, requests)
        error = next((errors[id(r)] for r in requests if id(r) in errors), None)
        if error is not None:
            yield ExampleScore(**about, error=error)
            continue
        for name in requests[0].filtered_resps:
            try:
                found = task.process_results(doc, [r.filtered_resps[name] for r in requests])
            except Exception as caught:  # of any kind: it is the task's own code
                yield ExampleScore(**about, filter=name,
                                   error=f"{type(caught).__name__}: {one_line(caught)}")
                continue
            for metric, value in found.items():
                together.setdefault((metric, name), []).append(value)
                yield ExampleScore(**about, metric=metric, filter=name,
                                   aggregation=_aggregation(task, metric), **_value(value))
    for (metric, name), values in together.items():
        if (how := _aggregation(task, metric)) != "mean":
            yield ExampleScore(None, metric=metric, filter=name, aggregation=how,
                               **_value(task.aggregation()[metric](values)))


def _about(task: Any, example: int, doc: Any, requests: Sequence[Any]) -> dict[str, Any]:
    """What all rows of an example say of it."""
    return {"example": example,
            "requests": digest("requests", [_json(request.args) for request in requests]),
            "target": str(task.doc_to_target(doc)),
            "responses": _json([request.resps[0] for request in requests])}


def _aggregation(task: Any, metric: str) -> str:
    """Name of the function that puts values of a metric together; ``mean`` where there is none."""
    function = task.aggregation().get(metric)
    return "mean" if function is None else str(getattr(function, "__name__", function))


def _value(value: Any) -> dict[str, Any]:
    number = isinstance(value, bool | int | float | np.generic)
    return {"value": float(value)} if number else {"parts": _json(value)}


def _json(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)
