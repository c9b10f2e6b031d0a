from __future__ import annotations

import string
from importlib import import_module
from pathlib import Path

import pytest

from prunelib.errors import UserError
from prunelib.tasks import (
    ICL18,
    SPLITS,
    SUITES,
    TASKS,
    Task,
    count_vowels,
    get_task,
    sources,
    task_names,
)
from prunelib.tasks.registry import SOURCES


@pytest.mark.parametrize("name", [name for name in TASKS if not get_task(name).parts])
def test_a_task_is_a_function_and_every_pair_has_one_split(name: str) -> None:
    task = get_task(name)
    inputs = [x for x, _ in task.pairs]
    assert len(set(inputs)) == len(inputs) >= 26
    assert all(x.strip() == x and y.strip() == y and x and y for x, y in task.pairs)
    members = [pair for split in SPLITS for pair in task.split(split)]
    assert sorted(members) == sorted(task.pairs)


@pytest.mark.parametrize("name", [name for name in TASKS if not get_task(name).parts])
@pytest.mark.parametrize("split", SPLITS)
def test_every_split_has_room_for_some_shots(name: str, split: str) -> None:
    get_task(name).check(split, 3)  # type: ignore[arg-type]


def test_the_benchmark_has_18_tasks_in_four_groups() -> None:
    groups = [get_task(name).group for name in ICL18]
    assert len(ICL18) == 18
    assert {g: groups.count(g) for g in groups} == {
        "translation": 4, "linguistic": 4, "knowledge": 4, "algorithmic": 6,
    }  # fmt: skip
    assert len(SUITES["union"]) == 27


def test_vowels_are_those_of_the_papers_example() -> None:
    # formulas.md §1.1: New York 2, Lyon 1, Florida 3, so y is no vowel
    assert [count_vowels(w) for w in ("New York", "Lyon", "Florida")] == [2, 1, 3]


def test_vowel_counting_counts_vowels_and_answers_in_one_digit() -> None:
    task = get_task("vowel_counting")
    for word, answer in task.pairs:
        assert answer == str(len([c for c in word if c in "aeiouAEIOU"])) and len(answer) == 1
    assert {y for _, y in task.pairs} == set("123456")


def test_algorithms_give_what_they_promise() -> None:
    letters = string.ascii_lowercase
    assert dict(get_task("next_letter").pairs)["m"] == "n"
    assert dict(get_task("prev_letter").pairs)["a"] == "z"
    assert dict(get_task("to_upper").pairs) == {c: c.upper() for c in letters}
    assert dict(get_task("char_to_int").pairs)["c"] == "3"
    for x, y in get_task("list_last").pairs:
        assert x.split(",")[-1] == y
    for x, y in get_task("list_min").pairs:
        assert y == str(min(int(i) for i in x.split(",")))
    for x, y in get_task("list_max").pairs:
        assert y == str(max(int(i) for i in x.split(",")))
    for x, y in get_task("list_length").pairs:
        assert y == str(len(x.split(",")))


def test_suites_and_names_expand_once_each() -> None:
    assert task_names(["icl18", "to_upper", "vowel_counting"]) == [*ICL18, "vowel_counting"]
    with pytest.raises(UserError, match="did you mean antonyms"):
        task_names("antonym")


def test_matching_rules() -> None:
    exact = Task("t", "g", (("a", "b"),), "")
    prefix = Task("t", "g", (("a", "b"),), "", match="prefix")
    assert exact.matches(" Paris ", "Paris") and not exact.matches("Par", "Paris")
    assert prefix.matches("Par", "Paris") and prefix.matches("Paris, France", "Paris")
    assert not prefix.matches("", "Paris") and not prefix.matches("Rome", "Paris")


def test_the_digest_follows_the_content() -> None:
    base = Task("t", "g", (("a", "b"),), "one")
    assert base.digest == Task("t", "g", (("a", "b"),), "another description").digest
    assert base.digest != Task("t", "g", (("a", "c"),), "one").digest
    assert base.digest != Task("t", "g", (("a", "b"),), "one", gold_not_in_prompt=True).digest


def test_every_source_has_a_file_and_a_line() -> None:
    files = {file.stem for file in Path(sources.__path__[0]).glob("*.py")} - {"__init__", "base"}
    assert set(SOURCES) == files
    made = [import_module(f"prunelib.tasks.sources.{name}") for name in SOURCES]
    names = [name for source in made for name in source.TASKS]
    suites = [name for source in made for name in source.SUITES]
    assert sorted(names) == sorted(TASKS) and sorted(suites) == sorted(SUITES)
    assert not set(names) & set(suites)
    assert all(get_task(name).name == name for name in names)
