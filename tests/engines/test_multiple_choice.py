"""Choosing among options, against teacher forcing by plain transformers."""

from __future__ import annotations

import random

import pytest
import torch
from tiny_llama import CONTEXT, WIDTH, Oracle, random_prompts

from prunelib.engines.base import Engine
from prunelib.engines.multiple_choice import choose_options
from prunelib.errors import UnitError, UserError
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.models import ModelInfo
from prunelib.models.loading import load_tokenizer
from prunelib.reference.corpus import vocabulary
from prunelib.tasks import draw, get_task
from prunelib.tasks.tokenization import answer_tokens

PROMPTS = random_prompts(6, 3, 40)
ABLATIONS = [BASELINE, Ablation.of_layer(0, range(0, WIDTH, 2))]


def random_options(seed: int) -> list[tuple[int, ...]]:
    """Options of some tokens each, many of which begin alike; none begins another."""
    rng = random.Random(seed)
    heads = [tuple(rng.randrange(4, 60) for _ in range(rng.randint(1, 3))) for _ in range(2)]
    tails = [tuple(rng.randrange(4, 80) for _ in range(rng.randrange(4))) for _ in range(6)]
    return [(*rng.choice(heads), 60 + i, *tail) for i, tail in enumerate(tails)]


@torch.inference_mode()
def forced(oracle: Oracle, ablation: Ablation, prompt: tuple[int, ...], option: tuple[int, ...]
           ) -> float:
    """Log-probability of an option after a prompt from one forward pass over both."""
    logits = oracle.ablated(ablation)(torch.tensor([[*prompt, *option]])).logits[0]
    logprobs = logits.double().log_softmax(-1)[len(prompt) - 1 : -1]
    return float(logprobs.gather(1, torch.tensor(option)[:, None]).sum())


@pytest.mark.parametrize("ablation", ABLATIONS, ids=["baseline", "ablated"])
def test_scores_are_those_of_teacher_forcing(
    ablation: Ablation, engine: Engine, oracle: Oracle
) -> None:
    options = [random_options(seed) for seed in range(len(PROMPTS))]
    engine.switch(ablation)
    choices = choose_options(engine, PROMPTS, options)
    for prompt, some, choice in zip(PROMPTS, options, choices, strict=True):
        truth = [forced(oracle, ablation, prompt, option) for option in some]
        assert choice.scores == pytest.approx(truth, abs=2e-4)
        assert choice.best == max(range(len(some)), key=lambda i: truth[i])
    assert len({choice.best for choice in choices}) > 1


@pytest.mark.parametrize("ablation", ABLATIONS, ids=["baseline", "ablated"])
def test_forced_continuations_have_the_log_probabilities_of_plain_transformers(
    ablation: Ablation, engine: Engine, oracle: Oracle
) -> None:
    prompts = [prompt for prompt in PROMPTS for _ in range(6)]
    continuations = [option for seed in range(len(PROMPTS)) for option in random_options(seed)]
    engine.switch(ablation)
    found = engine.force(prompts, continuations)
    model = oracle.ablated(ablation)
    for prompt, continuation, forced_one in zip(prompts, continuations, found, strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *continuation]])).logits[0, len(prompt) - 1 : -1]
        truth = logits.double().log_softmax(-1).gather(1, torch.tensor(continuation)[:, None])
        assert forced_one.error is None
        assert forced_one.logprobs == pytest.approx(truth[:, 0].tolist(), abs=1e-4)
        assert forced_one.best == tuple(logits.argmax(-1).tolist())


def test_a_continuation_that_cannot_be_scored_fails_alone(engine: Engine) -> None:
    engine.switch(BASELINE)
    full = random_prompts(1, CONTEXT - 3, CONTEXT - 3)[0]  # and a first token
    found = engine.force([full, full, PROMPTS[0], PROMPTS[0], (), PROMPTS[0]],
                         [(5, 6), (5, 6, 7), (), (5, 10**6), (5,), (5, 6)])
    errors = [forced_one.error or "" for forced_one in found]
    assert errors[0] == errors[5] == "" and len(found[0].logprobs) == 2
    assert "too long" in errors[1] and "empty continuation" in errors[2]
    assert "vocabulary" in errors[3] and "empty prompt" in errors[4]
    assert engine.force([], []) == []


def test_probabilities_of_all_single_tokens_add_up_to_one(engine: Engine) -> None:
    engine.switch(BASELINE)
    every = [[(i,) for i in range(len(vocabulary()))]]
    scores = torch.tensor(choose_options(engine, PROMPTS[:1], every)[0].scores)
    assert float(scores.exp().sum()) == pytest.approx(1, abs=1e-5)


def test_options_that_cannot_be_compared_are_refused(engine: Engine) -> None:
    engine.switch(BASELINE)
    for options in ([(5, 6), (5,)], [(5,), ()]):
        with pytest.raises(UserError, match="option 2 of 2 is the beginning"):
            choose_options(engine, PROMPTS[:1], [options])
    with pytest.raises(UnitError, match="too long"):
        choose_options(engine, random_prompts(1, CONTEXT - 1, CONTEXT - 1), [[(5, 6), (7,)]])
    assert choose_options(engine, [], []) == []


def test_words_are_tokenised_behind_their_prompt(engine: Engine, info: ModelInfo) -> None:
    engine.switch(BASELINE)
    example = draw(get_task("location_continent"), split="report", shots=1, seed=0, count=1,
                   prompt_format="comma")[0]
    tokenizer = load_tokenizer(info)
    prompt, options = answer_tokens(example, ["Asia", "Africa"], tokenizer)
    assert [tokenizer.decode(o) for o in options] == [" Asia", " Africa"]
    choice = choose_options(engine, [prompt], [options])[0]
    assert len(choice.scores) == 2 and max(choice.scores) < 0
