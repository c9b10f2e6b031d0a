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
