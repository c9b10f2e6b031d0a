"""Data sets whose rows have choices of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from prunelib.errors import UserError
from prunelib.tasks import Choice, DatasetSpec, Task, build_task, draw

ROWS = [
    {"q": "two", "options": ["a", "b"], "keys": ["x", "y"], "label": 1, "key": "y"},
    {"q": "four", "options": ["c", "d", "e", "f"], "keys": ["p", "q", "r", "s"], "label": 3,
     "key": "s"},
    {"q": "many", "options": [f"c{i}" for i in range(28)], "keys": [f"k{i}" for i in range(28)],
     "label": 27, "key": "k27"},
]


def made(folder: Path, rows: list[dict[str, Any]] = ROWS, **fields: Any) -> Task:
    folder.mkdir(exist_ok=True)
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    base = {"name": "mine", "path": str(folder), "splits": {"report": "test"},
            "template": "{q}: {answer}", "choices": "options"}
    fields = {k: v for k, v in (base | fields).items() if v is not None}
    return build_task(DatasetSpec.model_validate(fields))


def test_every_row_keeps_all_of_its_choices(tmp_path: Path) -> None:
    task = made(tmp_path)
    assert task.scoring == "likelihood" and task.options == ()
    assert task.pairs == (("two:", "b"), ("four:", "f"), ("many:", "c27"))
    for row, choices in zip(ROWS, task.split_choices("report"), strict=True):
        assert choices == tuple(Choice(text, f"{row['q']}:", text, i == row["label"])
                                for i, text in enumerate(row["options"]))


def test_labels_of_choices_are_a_column_or_a_list(tmp_path: Path) -> None:
    plain = made(tmp_path / "a")
    assert made(tmp_path / "b", label="key", choice_labels="keys").choices == plain.choices
    rows = [{"q": "one", "first": "A", "second": "B", "label": label} for label in ("2", "1")]
    task = made(tmp_path / "c", rows, choices=["{first}!", "{second}"], choice_labels=[1, 2])
    assert task.pairs == (("one:", "B"), ("one:", "A!"))
    with pytest.raises(UserError, match="row 0: label 'y' is none of its choices' labels"):
        made(tmp_path / "d", label="key")
    with pytest.raises(UserError, match="row 0: two of its choices' labels are 'x'"):
        made(tmp_path / "e", [ROWS[0] | {"keys": ["x", "x"], "key": "x"}], label="key",
             choice_labels="keys")


def test_several_choices_may_be_right(tmp_path: Path) -> None:
    rows = [{"q": "x", "options": ["a", "b", "c"], "label": [2, 1]}]
    choices = made(tmp_path, rows).split_choices("report")[0]
    assert [choice.right for choice in choices] == [False, True, True]


def test_choices_may_stand_in_the_prompt(tmp_path: Path) -> None:
    rows = [{"before": "A saw ", "after": "and left.", "o": ["B", "C"], "label": 1},
            {"before": "So did ", "after": "too.", "o": ["D", "E", "F"], "label": 0}]
    task = made(tmp_path, rows, template="{before}{choice} {answer}", choices="o",
                continuation="{after}")
    assert task.pairs == (("A saw C", "and left."), ("So did D", "too."))
    for example in draw(task, split="report", shots=1, seed=0, count=2):
        assert example.lead == " " and len(example.choice_prompts) in (2, 3)
        shown = f"{example.demonstrations[0][0]} {example.demonstrations[0][1]}\n\n"
        for choice, prompt in zip(example.choices, example.choice_prompts, strict=True):
            assert prompt == shown + choice.query and choice.query.endswith(choice.text)
            assert choice.continuation == example.gold


def test_prompts_of_choices_have_the_same_demonstrations(tmp_path: Path) -> None:
    for example in draw(made(tmp_path), split="report", shots=2, seed=0, count=3):
        assert set(example.choice_prompts) == {example.prompt}
        assert example.gold in [c.continuation for c in example.choices if c.right]


def test_without_labels_no_choice_is_right(tmp_path: Path) -> None:
    task = made(tmp_path, [{"q": "x", "options": ["a", "b"]}], unlabelled=["report"])
    assert task.pairs == (("x:", ""),)
    assert not any(choice.right for choice in task.choices[0])


def test_the_digest_tells_what_is_compared(tmp_path: Path) -> None:
    tasks = [made(tmp_path), made(tmp_path, scoring="likelihood_per_character"),
             made(tmp_path, template="{q}: {answer}", choices=["a", "b"], choice_labels=None,
                  rows=[{"q": "two", "label": 1}])]
    assert len({task.digest for task in tasks}) == 3


@pytest.mark.parametrize(("rows", "message"), [
    ([{"q": "x", "options": ["a"], "label": 0}], "two choices or more, not 1"),
    ([{"q": "x", "options": ["a", ""], "label": 0}], "choice 2 is empty"),
    ([{"q": "x", "options": "ab", "label": 0}], "not a list of texts"),
    ([{"q": "x", "options": ["a", "b"], "label": 2}], "label '2' is none"),
    ([{"q": "x", "options": ["a", "b"], "label": []}], "no choice is right"),
])
def test_a_row_that_cannot_be_a_question_is_named(
    rows: list[dict[str, Any]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"row 0: .*{message}"):
        made(tmp_path, rows)


@pytest.mark.parametrize(("fields", "message"), [
    ({"template": None}, "needs template"),
    ({"input": "q"}, "needs template"),
    ({"template": "{q} {choice} {answer}"}, "needs choices and continuation"),
    ({"continuation": "{q}"}, "needs {choice}"),
    ({"answers": {"0": "a"}}, "leave out answers"),
    ({"choices": None, "choice_labels": ["a"]}, "of which there are none"),
    ({"scoring": "greedy"}, "for data sets without choices"),
    ({"choices": None, "scoring": "likelihood"}, "compares choices"),
    ({"choices": None, "scoring": "options"}, "chooses among answers"),
    ({"scoring": "likelihod"}, "likelihood_per_byte"),
    ({"prepare": "hellaswg"}, "did you mean hellaswag"),
])
def test_a_data_set_that_makes_no_sense_is_refused(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises((UserError, ValidationError)) as refused:
        made(tmp_path, **fields)
    assert message in str(refused.value)


def test_an_input_without_a_template_is_written_in_the_format_of_the_recipe(tmp_path: Path) -> None:
    rows = [{"text": f"word {i}", "label": i % 2} for i in range(4)]
    task = made(tmp_path, rows, template=None, choices=None, input="text",
                answers={0: "even", 1: "odd"})
    assert task.format is None and task.options == ("even", "odd")
    example = draw(task, split="report", shots=1, seed=0, count=1, prompt_format="colon")[0]
    (x, y), = example.demonstrations
    assert example.prompt == f"{x} : {y} {example.query} :"


def test_what_parts_demonstrations_can_be_said(tmp_path: Path) -> None:
    example = draw(made(tmp_path, separator=" ### "), split="report", shots=1, seed=0, count=1)[0]
    (x, y), = example.demonstrations
    assert example.prompt == f"{x} {y} ### {example.query}" and example.separator == " ### "


def test_a_list_in_a_template_has_a_letter_for_every_element(tmp_path: Path) -> None:
    prompt = made(tmp_path, [ROWS[2]], template="{q}\n{options}\n{answer}").pairs[0][0]
    lines = prompt.split("\n")[1:-1]
    assert [line.split(": ")[1] for line in lines] == ROWS[2]["options"]
    assert [line.split(": ")[0] for line in lines][24:] == ["Y", "Z", "AA", "AB"]
