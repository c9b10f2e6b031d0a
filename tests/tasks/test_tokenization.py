"""Room for answers: counted as they stand in their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunelib.tasks import Example
from prunelib.tasks.tokenization import answer_room


class Pieces:
    """A tokenizer of known words, longest first; what no word begins with is one character."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = sorted(words, key=len, reverse=True)
        self.texts: list[str] = []

    def __call__(self, text: str, **_: object) -> dict[str, list[str]]:
        self.texts.append(text)
        ids = []
        while text:
            found = next((word for word in self.words if text.startswith(word)), text[0])
            ids.append(found)
            text = text[len(found):]
        return {"input_ids": ids}


def example(prompt: str, gold: str, *answers: str, lead: str = " ") -> Example:
    shown = tuple((f"x{i}", answer) for i, answer in enumerate(answers))
    return Example("t", "report", len(shown), 0, 0, "q", gold, shown, prompt, lead, "\n")


def room(words: Sequence[str], *examples: Example, options: Sequence[str] = ()) -> int:
    tokenizer: Any = Pieces(words)
    return answer_room(examples, options, tokenizer)


def test_an_answer_has_the_tokens_that_it_has_after_its_prompt_and_one_more_to_end() -> None:
    assert room([" cold"], example("hot ->", "cold")) == 1 + 1
    # alone, or after a blank that its format does not have, it has other tokens
    assert room([" cold"], example("hot->", "cold", lead="")) == 4 + 1


def test_the_longest_of_answers_and_options_counts() -> None:
    assert room([], example("a->", "b", "ccc", lead=""), example("a->", "bb", lead="")) == 3 + 1
    assert room([], example("a->", "b", lead=""), options=("b", "never")) == 5 + 1


def test_what_is_merged_with_the_prompts_end_counts_as_a_token_of_the_answer() -> None:
    assert room([">co"], example("a->", "cold", lead="")) == 3 + 1


def test_every_answer_is_looked_at_once() -> None:
    tokenizer: Any = Pieces([])
    answer_room([example(f"{i}->", "yes", "no") for i in range(50)], ("yes", "no"), tokenizer)
    asked = [text for text in tokenizer.texts if text != "a"]  # which shows its special tokens
    assert len(asked) == 2 * 2
