"""Choosing among a question's own choices: how scores become a choice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, cast

import pytest
import torch
from transformers import AutoModelForCausalLM

from prunelib.engines.base import Engine, Forced
from prunelib.engines.multiple_choice import choose_own
from prunelib.engines.transformers import TransformersEngine
from prunelib.models import ModelInfo
from prunelib.models.loading import load_tokenizer
from prunelib.tasks import Choice, ChoiceScoring, Example, PromptFormat, Task, draw

#: Log-likelihoods -3, -2.5 and -4, lengths 1, 5 and 9 characters, 2, 5 and 9 bytes.
TEXTS = ("ä", "after", "nonsense!")
SCORES = {"ä": -3.0, "after": -2.5, "nonsense!": -4.0}


def examples(*questions: tuple[str, Sequence[str]], lead: str = " ") -> list[Example]:
    """Questions with their choices, of which the last is right; in this order."""
    task = Task("own", "dataset", tuple((query, texts[-1]) for query, texts in questions), "",
                sizes=(0, 0, len(questions)), format=PromptFormat("", "", lead, "\n\n"),
                choices=tuple(tuple(Choice(text, query, text, text == texts[-1])
                                    for text in texts) for query, texts in questions))
    drawn = draw(task, split="report", shots=0, seed=0, count=len(questions))
    return [next(e for e in drawn if e.query == query and len(e.choices) == len(texts))
            for query, texts in questions]


class Told:
    """An engine that gives every continuation the log-likelihood that it is told."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def force(self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
              ) -> list[Forced]:
        texts = [self._tokenizer.decode(list(ids)).strip() for ids in continuations]
        return [Forced((SCORES[text] + 1, -1.0), (*tuple(ids)[:-1], 0))
                for text, ids in zip(texts, continuations, strict=True)]


@pytest.mark.parametrize(("scoring", "chosen", "margin"), [
    ("likelihood", "after", -4 + 2.5),
    ("likelihood_per_character", "nonsense!", -4 / 9 + 2.5 / 5),
    ("likelihood_per_byte", "nonsense!", -4 / 9 + 2.5 / 5),
])
def test_a_likelihood_is_divided_by_the_length_of_its_choice(
    scoring: ChoiceScoring, chosen: str, margin: float, opt: ModelInfo
) -> None:
    tokenizer = load_tokenizer(opt)
    found, = choose_own(cast("Engine", Told(tokenizer)), scoring, examples(("q", TEXTS)), tokenizer)
    assert found.likelihoods == (-3.0, -2.5, -4.0) and found.completion.text == chosen
    assert found.right == (chosen == TEXTS[-1]) and found.margin == pytest.approx(margin)


def test_characters_are_not_bytes() -> None:
    choice = Choice("ä", "q", "ä", True)
    assert [choice.length(s) for s in ("likelihood", "likelihood_per_character",
                                       "likelihood_per_byte")] == [1, 1, 2]


def test_a_match_needs_every_token(opt: ModelInfo) -> None:
    tokenizer = load_tokenizer(opt)
    found, = choose_own(cast("Engine", Told(tokenizer)), "greedy_match", examples(("q", ["after"])),
                        tokenizer)
    assert not found.right and found.likelihoods == (-2.5,) == (found.margin,)


def test_choices_that_a_tokenizer_joins_to_the_prompt_stay_comparable(opt: ModelInfo) -> None:
    tokenizer = load_tokenizer(opt)
    prompt, texts = "The mayor of the to", ["wn", "day", "p"]
    ids = [tokenizer(prompt + text)["input_ids"] for text in texts]
    before = tokenizer(prompt)["input_ids"]
    borders = [sum(1 for _ in takewhile(lambda two: two[0] == two[1], zip(before, whole,
                                                                          strict=False)))
               for whole in ids]
    assert min(borders) < len(before)  # the tokenizer joins at least one
    model = AutoModelForCausalLM.from_pretrained(opt.path, dtype=torch.float32).eval()
    truth = []
    for whole in ids:
        with torch.inference_mode():
            logprobs = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
        truth.append(sum(float(logprobs[i - 1, whole[i]])
                         for i in range(min(borders), len(whole))))
    found, = choose_own(TransformersEngine(opt), "likelihood", examples((prompt, texts), lead=""),
                        tokenizer)
    assert found.likelihoods == pytest.approx(truth, abs=1e-4)


def test_a_question_that_is_too_long_fails_alone(opt: ModelInfo) -> None:
    asked = examples(("The moon", ["shines", "sings loudly"]),
                     ("The sun", ["shines " * 600, "sings"]),
                     ("The moon", ["shines", "sings", *(f"is {i}" for i in range(30))]))
    found = choose_own(TransformersEngine(opt), "likelihood", asked, load_tokenizer(opt))
    assert [f.completion.error is None for f in found] == [True, False, True]
    assert "too long" in (found[1].completion.error or "") and not found[1].right
    assert [len(f.likelihoods) for f in found] == [2, 0, 32]
    assert found[2].likelihoods[0] == pytest.approx(found[0].likelihoods[0], abs=1e-5)
