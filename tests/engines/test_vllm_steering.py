"""vLLM steers as transformers does: the same places and positions, switched without a restart."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tiny_llama import LAYERS, random_prompts, start_here

from prunelib.engines.base import Canary, Engine, Prompt
from prunelib.engines.multiple_choice import choose_options
from prunelib.engines.transformers import TransformersEngine
from prunelib.errors import EngineDeadError, UserError
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.interventions.contrast import places_of
from prunelib.interventions.steering import Edit, Scope, Steering, packed, place_width
from prunelib.models import ModelInfo

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

#: Some are the beginnings of others, whose states must not be taken for theirs.
LONG = random_prompts(250, 30, 60)
ALL = [each for prompt in LONG for each in (prompt, prompt[: len(prompt) // 2])]
PROMPTS = ALL[:20]
CANDIDATES = tuple(range(4, 34))
CLOSE = {"atol": 2e-5, "rtol": 2e-5}


def steerings(info: ModelInfo) -> list[Steering]:
    found = []
    scopes: tuple[Scope, ...] = ("answer", "prompt_end")
    for i, place in enumerate(places_of(info)):
        width = place_width(info, place)
        shift = np.random.default_rng(i).normal(size=width) * 2
        found.append(Steering.of([Edit(LAYERS - 1, place, shift=packed(shift))], scopes[i % 2]))
        if place != "stream":
            found.append(Steering.of([Edit(0, place, tuple(range(0, width, 2)), factor=3.0)],
                                     scopes[(i + 1) % 2]))
    edits = [edit for steering in found for edit in steering.edits]
    return [*found, Steering.of(edits, "answer"), Steering.of(edits, "prompt_end")]


@pytest.fixture(scope="module")
def engines(info: ModelInfo) -> Iterator[tuple[Engine, Engine]]:
    vllm = start_here("vllm", info)
    yield vllm, TransformersEngine(info)
    vllm.close()


def test_both_engines_answer_alike(engines: tuple[Engine, Engine], info: ModelInfo) -> None:
    options = [[(5, 6), (5, 7), (8,)]] * len(PROMPTS)
    forced = [tuple(p[:3]) for p in PROMPTS[::-1]]
    before = None
    for steering in [*steerings(info), BASELINE, Ablation.of_layer(0, range(9))]:
        found = []
        for engine in engines:
            engine.switch(steering)
            # Twice: the second time from the cache of prefixes.
            scores = [torch.tensor(engine.logprobs(PROMPTS, [CANDIDATES] * len(PROMPTS)))
                      for _ in range(2)]
            torch.testing.assert_close(*scores, **CLOSE)
            found.append((
                scores[0],
                torch.tensor([f.logprobs for f in engine.force(PROMPTS, forced)]),
                torch.tensor([c.scores for c in choose_options(engine, PROMPTS, options)]),
                [c.token_ids for c in engine.generate([Prompt(p, 6) for p in PROMPTS])]))
        for ours, theirs in zip(found[0][:3], found[1][:3], strict=True):
            torch.testing.assert_close(ours, theirs, **CLOSE)
        assert found[0][3] == found[1][3]
        # Continuations, as both scopes are the same for the first token of an answer.
        assert before is None or (before - found[0][1]).abs().max() > 0.1, "it matters"
        before = found[0][1]


def test_500_prompts(engines: tuple[Engine, Engine], info: ModelInfo) -> None:
    found = []
    for engine in engines:
        engine.switch(steerings(info)[-2])
        found.append(torch.tensor(engine.logprobs(ALL, [CANDIDATES] * len(ALL))))
    assert len(ALL) == 500
    torch.testing.assert_close(*found, **CLOSE)


def test_proofs(engines: tuple[Engine, Engine], info: ModelInfo) -> None:
    vllm, transformers = engines
    steering = steerings(info)[0]
    transformers.switch(steering)
    (truth,) = transformers.logprobs(PROMPTS[:1], [CANDIDATES])
    vllm.switch(steering, Canary(PROMPTS[0], CANDIDATES, tuple(truth)))
    with pytest.raises(EngineDeadError, match="canary does not agree"):
        vllm.switch(BASELINE, Canary(PROMPTS[0], CANDIDATES, tuple(truth)))
    with pytest.raises(UserError, match="cannot scale the stream"):
        vllm.switch(Steering.of([Edit(0, "stream", factor=2.0)]))
    vllm.switch(steering)
    worker = vllm._llm.llm_engine.model_executor.driver_worker.worker  # type: ignore[attr-defined]
    live = worker.prunelib_steering
    live._changes[0][1]._shift[3] += 1
    changed = Steering.from_content(live.read())
    assert changed != steering and changed.edits[0].shifts[3] == steering.edits[0].shifts[3] + 1
    vllm.switch(BASELINE)
    assert not live._handles
