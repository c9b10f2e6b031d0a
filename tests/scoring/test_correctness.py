"""Copying on hand-made cases (formulas.md §6)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prunelib.scoring.correctness import Outcome, first_line, judge
from prunelib.tasks import FORMATS, Example, Task, draw, get_task

TASK = Task("t", "g", (("a", "1"),), "")


def outcome(
    prediction: str, gold: str = "3", answers: tuple[str, ...] = ("2", "1", "2")
) -> Outcome:
    demos = tuple((f"x{i}", y) for i, y in enumerate(answers))
    example = Example("t", "report", len(demos), 0, 0, "q", gold, demos, "", "", "\n")
    return judge(TASK, example, prediction)


def test_a_wrong_answer_from_the_prompt_is_copied_from_its_last_place() -> None:
    assert outcome("2") == Outcome(False, True, 2, False)
    assert outcome("1") == Outcome(False, True, 1, False)


def test_a_wrong_answer_from_elsewhere_is_no_copy() -> None:
    assert outcome("7") == Outcome(False, False, None, False)


def test_a_right_answer_is_never_a_copy() -> None:
    assert outcome("3") == Outcome(True, False, None, False)
    assert outcome("3", answers=("3", "1")) == Outcome(True, False, None, True)


def test_answers_are_compared_in_one_normal_form() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert outcome(decomposed, gold=composed).correct
    assert outcome(f" {decomposed}\u00a0", answers=("2", composed)).copied_position == 1
    assert outcome("x", gold=decomposed, answers=(composed,)).gold_in_prompt
    assert not outcome("Cafe", gold="cafe").correct


def test_case_is_folded_where_a_task_says_so_and_nowhere_else() -> None:
    folded = replace(TASK, ignore_case=True)
    assert folded.matches("STRASSE", "straße") and folded.matches("\u0130x", "i\u0307X")
    assert not TASK.matches("STRASSE", "straße") and not TASK.matches("Paris", "paris")
    assert replace(folded, match="prefix").matches("paris, france", "PARIS")


@pytest.mark.parametrize("name", FORMATS)
def test_a_right_answer_as_a_format_writes_it_is_right(name: str) -> None:
    task = get_task("to_upper")
    for example in draw(task, split="report", shots=2, seed=0, count=10, prompt_format=name):
        said = first_line(f"{example.lead}{example.gold}{example.separator}more", example.separator)
        assert judge(task, example, said).correct


@pytest.mark.parametrize(
    ("text", "separator", "answer"),
    [("3\nx->2", "\n", "3"), (" 3, Rome -> 4", ", ", "3"), ("", "\n", ""), ("abc", "\n", "abc"),
     (" 3 Rome : 4", " ", "3")],
)
def test_an_answer_ends_where_the_next_pair_begins(text: str, separator: str, answer: str) -> None:
    assert first_line(text, separator) == answer
