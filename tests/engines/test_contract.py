"""What every engine owes its caller, checked against plain transformers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from tiny_llama import CONTEXT, LAYERS, WIDTH, Oracle, random_prompts

from prunelib.components import Component
from prunelib.engines.base import Canary, Completion, Engine, Prompt
from prunelib.engines.limits import stop_token_ids
from prunelib.engines.transformers import TransformersEngine
from prunelib.errors import EngineDeadError, UnitError, UserError
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.interventions.fine_tuning import FineTuning, fine_tune
from prunelib.interventions.registry import KINDS
from prunelib.models import ModelInfo
from prunelib.models.loading import load_tokenizer
from prunelib.recipe.controls import FineTuningSpec
from prunelib.tasks.tokenization import continuation

A = Ablation.of_layer(0, range(0, WIDTH, 2))
B = Ablation.of([Component(0, "mlp_hidden", 1), *Ablation.of_layer(1, range(10, 40)).components])
ABLATIONS = {"baseline": BASELINE, "one layer": A, "two layers": B}
PROMPTS = random_prompts(12, 3, 60)
TOKENS = 8
CANDIDATES = tuple(range(4, 34))
#: Two implementations in float32 differ by some units in the last place of a logit; the
#: ablations here move log-probabilities by whole units.
CLOSE = {"atol": 1e-5, "rtol": 5e-6}


@pytest.fixture(autouse=True)
def _untouched(engine: Engine) -> None:
    engine.switch(BASELINE)


@pytest.fixture(scope="module")
def tokenizer(info: ModelInfo) -> Any:
    return load_tokenizer(info)


def generate(engine: Engine, prompts: Sequence[tuple[int, ...]]) -> list[Completion]:
    return engine.generate([Prompt(p, TOKENS) for p in prompts])


def logprobs(engine: Engine, prompts: Sequence[tuple[int, ...]] = PROMPTS) -> torch.Tensor:
    """``[prompts, candidates]``."""
    return torch.tensor(engine.logprobs(prompts, [CANDIDATES] * len(prompts)))


def expected(
    oracle: Oracle, ablation: Ablation, prompts: Sequence[tuple[int, ...]] = PROMPTS
) -> torch.Tensor:
    return torch.stack([oracle.logprobs(ablation, p)[list(CANDIDATES)] for p in prompts])


@pytest.mark.parametrize("name", ABLATIONS)
def test_completions_are_a_step_by_step_argmax(
    name: str, engine: Engine, oracle: Oracle, tokenizer: Any
) -> None:
    ablation, stops = ABLATIONS[name], stop_token_ids(tokenizer, ())
    engine.switch(ablation)
    for prompt, completion in zip(PROMPTS, generate(engine, PROMPTS), strict=True):
        answer = oracle.greedy(ablation, prompt, TOKENS, stops)
        assert completion == Completion(answer, tokenizer.decode(answer, skip_special_tokens=True))


@pytest.mark.parametrize("name", ABLATIONS)
def test_logprobs_are_those_of_zeroed_columns(name: str, engine: Engine, oracle: Oracle) -> None:
    engine.switch(ABLATIONS[name])
    truth = expected(oracle, ABLATIONS[name])
    torch.testing.assert_close(logprobs(engine), truth, **CLOSE)


def test_these_ablations_matter(oracle: Oracle, tokenizer: Any) -> None:
    stops = stop_token_ids(tokenizer, ())
    said = [[oracle.greedy(a, p, TOKENS, stops) for p in PROMPTS] for a in ABLATIONS.values()]
    assert said[0] != said[1] != said[2] != said[0]
    scores = [expected(oracle, a) for a in ABLATIONS.values()]
    assert min((a - b).abs().max() for a, b in pairwise(scores)) > 1
    assert any(0 < len(answer) < TOKENS for answers in said for answer in answers), "no stop seen"


def test_going_back_gives_back_the_same_bits(engine: Engine) -> None:
    seen = {}
    for name in ("one layer", "two layers", "baseline", "one layer", "baseline", "two layers"):
        engine.switch(ABLATIONS[name])
        now = logprobs(engine)
        assert torch.equal(seen.setdefault(name, now), now)


def test_no_cached_prefix_survives_a_switch(engine: Engine, oracle: Oracle) -> None:
    prompts = random_prompts(1, 150, 150, seed=1)
    for ablation in (A, B, A, BASELINE):
        engine.switch(ablation)
        first, again = logprobs(engine, prompts), logprobs(engine, prompts)
        truth = expected(oracle, ablation, prompts)
        torch.testing.assert_close(first, truth, **CLOSE)
        torch.testing.assert_close(again, truth, **CLOSE)


def canary_for(oracle: Oracle, ablation: Ablation) -> Canary:
    answer = expected(oracle, ablation, PROMPTS[:1])[0]
    return Canary(PROMPTS[0], CANDIDATES, tuple(answer.tolist()))


def test_a_true_canary_lives_and_a_wrong_one_dies(engine: Engine, oracle: Oracle) -> None:
    engine.switch(A, canary_for(oracle, A))
    with pytest.raises(EngineDeadError, match="canary"):
        engine.switch(B, canary_for(oracle, A))
    with pytest.raises(EngineDeadError):
        logprobs(engine)
    with pytest.raises(EngineDeadError):
        generate(engine, PROMPTS)
    engine.switch(B, canary_for(oracle, B))
    assert logprobs(engine).shape == (len(PROMPTS), len(CANDIDATES))


def test_what_cannot_be_run_is_a_row_and_the_rest_is_answered(engine: Engine) -> None:
    fits, too_long = random_prompts(1, 40, 40)[0], random_prompts(1, CONTEXT, CONTEXT)[0]
    edge = too_long[: CONTEXT - TOKENS]
    rows = generate(engine, [fits, too_long, edge, (*edge, 5), (), (1, 10_000), fits])
    assert [row.error is None for row in rows] == [True, False, True, False, False, False, True]
    assert rows[0] == rows[-1]
    assert rows[1] == Completion((), "", rows[1].error)
    assert "too long" in str(rows[1].error) and "too long" in str(rows[3].error)


def test_a_prompt_that_cannot_be_scored_fails_the_call(engine: Engine) -> None:
    too_long = random_prompts(1, CONTEXT, CONTEXT)[0]
    with pytest.raises(UnitError, match="prompt 1: too long"):
        engine.logprobs([PROMPTS[0], too_long], [CANDIDATES] * 2)
    with pytest.raises(UnitError, match="candidates"):
        engine.logprobs([PROMPTS[0]], [[10_000]])


def test_order_is_the_callers(engine: Engine) -> None:
    forward, backward = generate(engine, PROMPTS), generate(engine, PROMPTS[::-1])
    assert forward == backward[::-1]
    assert len({row.text for row in forward}) > 1
    flipped = logprobs(engine, PROMPTS[::-1]).flip(0)
    torch.testing.assert_close(logprobs(engine), flipped, **CLOSE)


def test_every_prompt_has_its_own_max_tokens(engine: Engine) -> None:
    whole = engine.generate([Prompt(p, TOKENS) for p in PROMPTS])
    cut = engine.generate([Prompt(p, 1 + i % 3) for i, p in enumerate(PROMPTS)])
    for i, (short, long) in enumerate(zip(cut, whole, strict=True)):
        assert short.token_ids == long.token_ids[: 1 + i % 3]


def test_texts_end_a_completion_in_place_of_lines(
    engine: Engine, oracle: Oracle, tokenizer: Any
) -> None:
    prompts = PROMPTS[:6]
    whole = engine.generate([Prompt(p, 24, ()) for p in prompts])
    for prompt, completion in zip(prompts, whole, strict=True):
        answer = oracle.greedy(BASELINE, prompt, 24, [tokenizer.eos_token_id])
        assert completion == Completion(answer, tokenizer.decode(answer, skip_special_tokens=True))
    assert any("\n" in completion.text.strip() for completion in whole)  # lines do not end them
    ends = [("no such text", c.text[len(c.text) // 2 :][:3], "") for c in whole]
    asked = [Prompt(p, 24, end) for p, end in zip(prompts, ends, strict=True)]
    cut = engine.generate([*asked, Prompt(prompts[0], TOKENS)])
    for completion, long, (_, end, _) in zip(cut, whole, ends, strict=False):
        assert completion.text == long.text[: long.text.index(end)]
    assert cut[-1] == generate(engine, prompts[:1])[0]


def test_a_last_token_may_be_behind_the_context(engine: Engine, oracle: Oracle) -> None:
    full = random_prompts(1, CONTEXT, CONTEXT)[0][:CONTEXT]
    for fill in (False, True):
        [found] = engine.force([full[:-2]], [(*full[-2:], 7)], fill=fill)
        if fill and engine.kind == "transformers":
            assert found.error is None
            assert found.logprobs[-1] == pytest.approx(
                float(oracle.logprobs(BASELINE, full)[7]), abs=1e-4)
        else:
            assert "too long" in str(found.error)


def test_candidates_may_differ_repeat_and_be_many(engine: Engine, oracle: Oracle) -> None:
    lists: list[tuple[int, ...]] = [(9,), (), (7, 5, 7), tuple(range(60)) * 3]
    answers = engine.logprobs(PROMPTS[:4], lists)
    for prompt, wanted, answer in zip(PROMPTS, lists, answers, strict=False):
        truth = oracle.logprobs(BASELINE, prompt)[list(wanted)]
        torch.testing.assert_close(torch.tensor(answer), truth, **CLOSE)


def test_nothing_in_gives_nothing_out(engine: Engine) -> None:
    assert engine.generate([]) == []
    assert engine.logprobs([], []) == []


@pytest.mark.parametrize("component", [(LAYERS, 0), (-1, 0), (0, WIDTH), (1, -1)])
def test_a_component_outside_the_model_switches_nothing(
    component: tuple[int, int], engine: Engine
) -> None:
    engine.switch(A)
    before = logprobs(engine)
    with pytest.raises(UserError, match="is not in a model"):
        engine.switch(Ablation.of([Component(component[0], "mlp_hidden", component[1])]))
    assert torch.equal(logprobs(engine), before)


def test_an_engine_runs_the_kinds_that_it_names_and_refuses_others(
    engine: Engine, info: ModelInfo, tokenizer: Any
) -> None:
    """And what it refuses leaves the live intervention as it was."""
    tuning = FineTuning((("ab->", "cd"), ("ef->", "gh")),
                        FineTuningSpec(epochs=2, learning_rate=1e-2))
    assert engine.runs <= KINDS.keys() and Ablation.kind in engine.runs
    engine.switch(A)
    before = logprobs(engine)
    if tuning.kind not in engine.runs:
        with pytest.raises(UserError, match="cannot run interventions of kind fine_tuning"):
            engine.switch(tuning)
        assert (logprobs(engine) == before).all()
        return
    engine.switch(tuning)
    samples = [(tuple(tokenizer(x)["input_ids"]), continuation(x, y, tokenizer))
               for x, y in tuning.samples]
    tuned = TransformersEngine(fine_tune(info, samples, tuning.settings))
    assert (logprobs(engine) == logprobs(tuned)).all()
    engine.switch(A)
    assert (logprobs(engine) == before).all()
